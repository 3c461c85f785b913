# What type checkers see of the package. At run time the names are imported when first asked for.
from meshserve.client.arrays import Inputs as Inputs
from meshserve.client.async_client import AsyncClient as AsyncClient
from meshserve.client.conversation import ListedModel as ListedModel
from meshserve.client.conversation import ModelMetadata as ModelMetadata
from meshserve.client.conversation import Prediction as Prediction
from meshserve.client.sync_client import Client as Client
