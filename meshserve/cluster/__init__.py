"""The edge to Ray, and the only folder that imports it: thin actors around worker, gateway and control. No request passes through here."""
