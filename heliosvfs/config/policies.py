"""From [audit] to the policy of the audit log."""

from __future__ import annotations

import heliosaudit
from heliosvfs.config import reading
from heliosvfs.config.configs import Config
from heliosvfs.config.keys import hash_key_of
from heliosvfs.config.presets import PRESETS

__all__ = ["policy_of", "require_floors"]

_EDGE_BUFFER = 50  # events that may wait in a small machine's memory


def policy_of(config: Config) -> heliosaudit.Policy | None:
    """Return what is recorded; None: nothing.

    Raises:
        ConfigError: The policy can't be served.
    """
    audit = config.audit
    if not audit.enabled:
        return None
    capture = audit.capture_metadata
    buffer = min(audit.async_buffer_size, _EDGE_BUFFER) if config.iot.edge_mode else audit.async_buffer_size
    try:
        return heliosaudit.Policy(
            log_ddl=audit.log_ddl,
            log_dml=audit.log_dml,
            log_select=audit.log_select,
            log_transactions=audit.log_transactions,
            log_auth=audit.log_auth,
            log_admin=audit.log_admin,
            retention_days=audit.retention_days,
            async_buffer_size=buffer,
            read_durability=audit.read_durability,
            capture_parameters=audit.capture_parameters,
            hash_key=hash_key_of(config),
            capture_rows=audit.capture_rows,
            max_query_length=audit.max_query_length,
            max_value_length=audit.max_value_length,
            include_tables=frozenset(audit.include_tables),
            exclude_tables=frozenset(audit.exclude_tables),
            include_users=frozenset(audit.include_users),
            exclude_users=frozenset(audit.exclude_users),
            redacted_columns=frozenset(audit.redacted_columns),
            capture_client_ip=capture.capture_client_ip,
            capture_application_name=capture.capture_application_name,
            capture_database_name=capture.capture_database_name,
            capture_execution_time=capture.capture_execution_time,
            capture_custom_fields=capture.capture_custom_fields,
            application_name=config.server.service_name,
            lockdown=config.compliance.audit_trail_lockdown,
        )
    except heliosaudit.AuditPolicyError as error:
        raise reading.problem(config.origins.source, "audit", str(error)) from None


def require_floors(config: Config, policy: heliosaudit.Policy) -> None:
    """Refuse a policy that was given beside a configuration and records less than its presets ask for.

    Raises:
        ConfigError: It does.
    """
    for name in config.origins.presets:
        for floor in PRESETS[name].floors:
            section, _, option = floor.option.partition(".")
            if section == "audit" and hasattr(policy, option) and not floor.holds(getattr(policy, option)):
                what = f"expected {floor.least} under the preset {name}, which {floor.clause} asks for"
                raise reading.problem("connect(audit=...)", option, what)
