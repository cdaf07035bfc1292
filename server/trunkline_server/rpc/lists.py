"""The methods that list what there is to call, and how it fares."""

from trunkline import v1
from trunkline_server.engine.inventory import Viewer, provider_health, public_models
from trunkline_server.governance.identity.principal import Principal
from trunkline_server.pages import read_token, size_of, write_token
from trunkline_server.rpc.metadata import read_authorization
from trunkline_server.rpc.service import Service, guarded
from trunkline_server.rpc.ticket import Context, Ticket
from trunkline_server.rpc.validation import validate_list_models


class ListMethods(Service):
    """These methods of the service. They show a caller what calls of its may be served by."""

    @guarded("list_models")
    async def list_models(
        self, ticket: Ticket, raw: bytes, context: Context
    ) -> v1.ListModelsResponse:
        """ListModels."""
        caller = self._identify(ticket, read_authorization(context.invocation_metadata()))
        request = self._requests.parse(v1.ListModelsRequest, raw)
        validate_list_models(request)
        viewer = self._viewer(ticket, caller)
        size = size_of(request.page_size)
        question = (*sorted(request.capabilities), request.provider, size)
        after = read_token(request.page_token, *question)
        models = public_models(self._engine.table, viewer, request.capabilities, request.provider)
        if after is not None:
            # Names, and not places: models may come and go between two pages.
            models = [model for model in models if model.name > after]
        more = len(models) > size
        return v1.ListModelsResponse(
            models=models[:size],
            next_page_token=write_token(models[size - 1].name, *question) if more else "",
        )

    @guarded("list_provider_health")
    async def list_provider_health(
        self, ticket: Ticket, raw: bytes, context: Context
    ) -> v1.ListProviderHealthResponse:
        """ListProviderHealth."""
        caller = self._identify(ticket, read_authorization(context.invocation_metadata()))
        request = self._requests.parse(v1.ListProviderHealthRequest, raw)
        viewer = self._viewer(ticket, caller)
        providers = provider_health(self._engine.table, viewer, request.provider)
        return v1.ListProviderHealthResponse(providers=providers)

    def _viewer(self, ticket: Ticket, caller: Principal) -> Viewer:
        permit = self._decide(ticket, caller, "")
        if self.audit is not None:
            ticket.record_grant(self.audit, caller)
        return Viewer(caller, permit.constraints, self._clock.monotonic(), ticket.now)
