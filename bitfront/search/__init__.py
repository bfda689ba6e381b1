"""History -> next allocations: one search a file."""

from bitfront.plugins import Plugins
from bitfront.search.base import Search

SEARCHES: Plugins[Search] = Plugins(__name__, "search")
