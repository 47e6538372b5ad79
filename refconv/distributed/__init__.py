"""Networks on several processes or machines, by Dask distributed: AlexNet's towers, and the trainings of a comparison.

Needs the extra ``refconv[distributed]``. ``docs/distributed.md`` shows how to use it.
"""

from refconv.distributed.cluster import ClusterError, open_cluster
from refconv.distributed.towers import RemoteSGD, RemoteTowers, TowerLostError

__all__ = ["ClusterError", "RemoteSGD", "RemoteTowers", "TowerLostError", "open_cluster"]
