import sys
from pathlib import Path

# Programs beside the package, which import each other by plain names.
sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
