"""The configuration: one file and the environment, read once and checked whole."""

from trunkline_server.settings import values as read
from trunkline_server.settings.access import (
    AccessPolicySettings,
    AccessSettings,
    BindingSettings,
    CallersSettings,
    ConditionsSettings,
    GrantSettings,
    RoleSettings,
    WindowSettings,
)
from trunkline_server.settings.admin import ADMIN_LISTEN, AdminKeySettings, AdminSettings
from trunkline_server.settings.audit import AuditSettings
from trunkline_server.settings.caching import CacheRuleSettings, CacheSettings
from trunkline_server.settings.checks import check_settings, deployment_name
from trunkline_server.settings.cloud_auth import (
    AwsAuthSettings,
    CloudAuthSettings,
    EntraAuthSettings,
    GoogleAuthSettings,
    cloud_secrets,
)
from trunkline_server.settings.identity import (
    CertificateSettings,
    IssuerSettings,
    KeySettings,
    RetiredSecretSettings,
)
from trunkline_server.settings.known import Known, ProviderKind
from trunkline_server.settings.parse import (
    load,
    parse,
    read_records,
    resource_names,
    usual_key,
)
from trunkline_server.settings.privacy import (
    AnalyzerSettings,
    LabelSettings,
    PayloadSettings,
    PrivacySettings,
)
from trunkline_server.settings.problems import (
    ConfigError,
    InvalidValueError,
    Problem,
    suggestion,
)
from trunkline_server.settings.providers import (
    AuthSettings,
    CapabilitySettings,
    DeploymentSettings,
    GatewaySettings,
    PriceSettings,
    ProbeSettings,
    ProviderSettings,
    place_of,
    read_auth,
    read_price,
)
from trunkline_server.settings.quotas import BudgetSettings, LimitSettings
from trunkline_server.settings.records import list_of, map_of, record
from trunkline_server.settings.routing import (
    NO_HEDGE,
    AttemptSettings,
    BalanceSettings,
    BreakerSettings,
    HedgeSettings,
    PolicySettings,
    PrefixAffinitySettings,
    RetryBudgetSettings,
    RoutingSettings,
)
from trunkline_server.settings.schema import (
    ServerSettings,
    Settings,
    TelemetrySettings,
    TlsSettings,
)
from trunkline_server.settings.secret_checks import auth_secrets, provider_secrets
from trunkline_server.settings.secret_managers import SecretsSettings, VaultSettings
from trunkline_server.settings.secrets import (
    Secret,
    is_credential_name,
    is_header_safe,
    managed_reference,
    resolve_secret,
)
from trunkline_server.settings.state import LedgerSettings, StateSettings
from trunkline_server.settings.stored import STORED_KINDS, Document, Stored
from trunkline_server.settings.tenants import ProjectSettings, TenantSettings, TierSettings
from trunkline_server.settings.written import written_documents

__all__ = [
    "ADMIN_LISTEN",
    "NO_HEDGE",
    "STORED_KINDS",
    "AccessPolicySettings",
    "AccessSettings",
    "AdminKeySettings",
    "AdminSettings",
    "AnalyzerSettings",
    "AttemptSettings",
    "AuditSettings",
    "AuthSettings",
    "AwsAuthSettings",
    "BalanceSettings",
    "BindingSettings",
    "BreakerSettings",
    "BudgetSettings",
    "CacheRuleSettings",
    "CacheSettings",
    "CallersSettings",
    "CapabilitySettings",
    "CertificateSettings",
    "CloudAuthSettings",
    "ConditionsSettings",
    "ConfigError",
    "DeploymentSettings",
    "Document",
    "EntraAuthSettings",
    "GatewaySettings",
    "GoogleAuthSettings",
    "GrantSettings",
    "HedgeSettings",
    "InvalidValueError",
    "IssuerSettings",
    "KeySettings",
    "Known",
    "LabelSettings",
    "LedgerSettings",
    "LimitSettings",
    "PayloadSettings",
    "PolicySettings",
    "PrefixAffinitySettings",
    "PriceSettings",
    "PrivacySettings",
    "ProbeSettings",
    "Problem",
    "ProjectSettings",
    "ProviderKind",
    "ProviderSettings",
    "RetiredSecretSettings",
    "RetryBudgetSettings",
    "RoleSettings",
    "RoutingSettings",
    "Secret",
    "SecretsSettings",
    "ServerSettings",
    "Settings",
    "StateSettings",
    "Stored",
    "TelemetrySettings",
    "TenantSettings",
    "TierSettings",
    "TlsSettings",
    "VaultSettings",
    "WindowSettings",
    "auth_secrets",
    "check_settings",
    "cloud_secrets",
    "deployment_name",
    "is_credential_name",
    "is_header_safe",
    "list_of",
    "load",
    "managed_reference",
    "map_of",
    "parse",
    "place_of",
    "provider_secrets",
    "read",
    "read_auth",
    "read_price",
    "read_records",
    "record",
    "resolve_secret",
    "resource_names",
    "suggestion",
    "usual_key",
    "written_documents",
]
