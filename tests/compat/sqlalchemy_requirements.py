"""What SQLAlchemy's compliance suite may expect of SQLite: its own statement of that, test/requirements.py, is not in its wheel.

Features that a third-party dialect does not have unless it says so, and some that it has unless it says otherwise.
"""

from __future__ import annotations

from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements

HAS = """
aggregate_order_by autocommit boolean_col_expressions check_constraint_reflection computed_columns
computed_columns_reflect_persisted computed_columns_stored computed_columns_virtual create_table_as create_temp_table_as
ctes ctes_with_values date_historic datetime_historic datetime_literals except_ expression_server_defaults
fetch_expression fetch_offset_with_options fk_constraint_option_reflection_ondelete_noaction
fk_constraint_option_reflection_ondelete_restrict fk_constraint_option_reflection_onupdate_restrict
float_or_double_precision_behaves_generically foreign_key_constraint_name_reflection
foreign_key_constraint_option_reflection_ondelete foreign_key_constraint_option_reflection_onupdate index_ddl_if_exists
indexes_check_column_order indexes_with_expressions infinity_floats inline_check_constraint_reflection intersect
isolation_level json_array_indexes json_type legacy_unconditional_json_extract mod_operator_as_percent_sign
non_updating_cascade nullsordering nvarchar_types order_by_collation order_by_label_with_expression percent_schema_names
precision_numerics_enotation_small precision_numerics_retains_significant_digits reflect_table_options reflects_pk_names
regexp_match repeated_column_foreign_keys repeated_remote_col_foreign_keys server_defaults skip_autocommit_rollback
supports_bitwise_and supports_bitwise_not supports_bitwise_or supports_bitwise_shift supports_bitwise_xor
table_ddl_if_exists tuple_in tuple_in_w_empty unicode_ddl update_from view_column_reflection view_reflection views
window_functions window_range window_range_numeric
"""
LACKS = """
foreign_keys implicitly_named_constraints independent_connections json_index_supplementary_unicode_element nested_aggregates
numeric_received_as_decimal_untyped on_update_cascade on_update_or_deferrable_fks parens_in_union_contained_select_w_limit_offset
parens_in_union_contained_select_wo_limit_offset temp_table_reflect_indexes temp_table_reflection temporary_tables
"""


class Requirements(SuiteRequirements):
    """Named in the setup.cfg that test_sqlalchemy_suite.py writes."""

    def get_order_by_collation(self, config):  # noqa: ARG002 - SQLAlchemy's signature
        return "NOCASE"


for names, rule in ((HAS, exclusions.open), (LACKS, exclusions.closed)):
    for name in names.split():
        setattr(Requirements, name, property(lambda _, rule=rule: rule()))
