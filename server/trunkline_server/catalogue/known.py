"""What a configuration may refer to: the catalogue's rows and the price table's providers."""

from functools import cache

from trunkline_server.catalogue.extensions import dialects, provider_rows
from trunkline_server.catalogue.price_table import installed_table
from trunkline_server.settings import Known, ProviderKind


@cache
def known() -> Known:
    """The names that settings are checked against."""
    rows = provider_rows()
    return Known(
        kinds={
            name: ProviderKind(
                row.dialect, row.base_url, row.env, row.auth, row.region, row.base_urls
            )
            for name, row in rows.items()
        },
        dialects=frozenset(dialects()),
        price_providers=frozenset(installed_table().provider_ids),
    )
