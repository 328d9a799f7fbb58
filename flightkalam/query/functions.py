"""Which functions a statement may call.

The lists began as `duckdb_functions()` of 2.0.0 and were read by hand.  A new engine version adds nothing by itself:
a name that is not here does not exist for a client.  Left out is whatever reaches files, the network, settings, the
catalog, other tables, sequences, logs, the engine's internals or its parser; what sleeps; and what only builds types
the wire cannot carry.

A second list bounds functions that make much out of little.  The engine's memory limit does not see a string or a
list while a vector of them is being built: `repeat('x', 2_000_000_000)` ends the process.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OPERATORS = _words(
    """!= !__postfix !~~ !~~* % & && * ** + - -> ->> / // < <-> << <= <=> <@ = <> > >= >> @ @> ^ ^@ | || ~ ~~ ~~* ~~~ !~"""
)
MATH = _words(
    """abs acos acosh add asin asinh atan atan2 atanh bit_count bin binom cbrt ceil ceiling cos cosh cot degrees
    divide decimal_division even exp factorial fdiv floor fmod gamma gcd greatest greatest_common_divisor hex isfinite
    isinf isnan lcm least least_common_multiple lgamma ln log log10 log2 mod multiply nextafter nullif pi pow power
    radians random round round_even roundbankers sign signbit sin sinh sqrt subtract tan tanh to_base trunc unbin
    unhex xor"""
)
TEXT = _words(
    """ascii array_to_string array_to_string_comma_default base64 bit_length bit_position bitstring char_length
    character_length chr concat concat_ws contains damerau_levenshtein decode editdist3 encode ends_with from_base64
    from_binary from_hex formatreadabledecimalsize formatreadablesize format_bytes get_bit set_bit hamming hash
    ilike_escape instr jaccard jaro_similarity jaro_winkler_similarity lcase left left_grapheme len length
    length_grapheme levenshtein like_escape lower ltrim md5 md5_number md5_number_lower md5_number_upper mismatches
    nfc_normalize not_ilike_escape not_like_escape octet_length ord overlay parse_dirname parse_dirpath parse_filename
    parse_formatted_bytes parse_path pg_size_pretty position prefix regexp_escape regexp_extract regexp_extract_all
    regexp_full_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table replace reverse right
    right_grapheme rtrim sha1 sha256 split split_part starts_with str_split str_split_regex string_split
    string_split_regex string_to_array strip_accents strlen strpos substr substring substring_grapheme suffix
    to_base64 to_binary to_hex translate trim ucase unicode upper url_decode url_encode"""
)
TIME = _words(
    """age ago century date_add date_diff date_part date_sub date_trunc datediff datepart datesub datetrunc day
    dayname dayofmonth dayofweek dayofyear days_in_month decade epoch epoch_ms epoch_ns epoch_us era hour isodow
    isoyear julian last_day make_date make_time make_timestamp make_timestamp_ms make_timestamp_ns make_timestamptz
    microsecond millennium millisecond minute month monthname nanosecond normalized_interval quarter second strftime
    strptime time_bucket timezone timezone_hour timezone_minute to_centuries to_days to_decades to_hours
    to_microseconds to_millennia to_milliseconds to_minutes to_months to_quarters to_seconds to_timestamp to_weeks
    to_years try_strptime week weekday weekofyear year yearweek now today current_date current_localtime
    current_localtimestamp get_current_time get_current_timestamp transaction_timestamp"""
)
NESTED = _words(
    """aggregate apply array_aggr array_aggregate array_append array_apply array_cat array_concat array_contains
    array_cosine_distance array_cosine_similarity array_cross_product array_distance array_distinct array_dot_product
    array_extract array_filter array_grade_up array_has array_has_all array_has_any array_indexof array_inner_product
    array_intersect array_length array_negative_dot_product array_negative_inner_product array_pop_back
    array_pop_front array_position array_prepend array_push_back array_push_front array_reduce array_reverse
    array_reverse_sort array_select array_slice array_sort array_transform array_unique array_value array_where
    array_zip cardinality element_at filter flatten generate_subscripts grade_up list_aggr list_aggregate
    list_any_value list_append list_apply list_approx_count_distinct list_avg list_bit_and list_bit_or list_bit_xor
    list_bool_and list_bool_or list_cat list_concat list_contains list_cosine_distance list_cosine_similarity
    list_count list_distance list_distinct list_dot_product list_element list_entropy list_extract list_filter
    list_first list_grade_up list_has list_has_all list_has_any list_histogram list_indexof list_inner_product
    list_intersect list_kurtosis list_kurtosis_pop list_last list_mad list_max list_median list_min list_mode
    list_negative_dot_product list_negative_inner_product list_pack list_position list_prepend list_product
    list_reduce list_reverse list_reverse_sort list_select list_sem list_skewness list_slice list_sort list_stddev_pop
    list_stddev_samp list_string_agg list_sum list_transform list_unique list_value list_var_pop list_var_samp
    list_where list_zip map map_concat map_contains map_contains_entry map_contains_value map_entries map_extract
    map_extract_value map_from_entries map_keys map_values reduce row struct_concat struct_contains struct_extract
    struct_extract_at struct_has struct_indexof struct_insert struct_keys struct_pack struct_position struct_update
    struct_values union_extract union_tag union_value unnest unpivot_list"""
)
JSON = _words(
    """array_to_json from_json from_json_strict json json_array json_array_length json_contains json_deep_merge
    json_exists json_extract json_extract_path json_extract_path_text json_extract_string json_group_array
    json_group_object json_group_structure json_insert json_keys json_merge_patch json_merge_patch_diff json_normalize
    json_object json_pretty json_quote json_remove json_replace json_set json_strip_nulls json_structure
    json_transform json_transform_strict json_type json_valid json_value row_to_json to_json"""
)
OTHER = _words(
    """alias assert_true constant_or_null enum_code enum_first enum_last enum_range enum_range_boundary
    equi_width_bins error gen_random_uuid if invoke is_histogram_other_bin pg_typeof switch typeof uuid
    uuid_extract_timestamp uuid_extract_version uuidv4 uuidv7"""
)
AGGREGATES = _words(
    """any_value approx_count_distinct approx_quantile approx_top_k arbitrary arg_max arg_max_null arg_max_nulls_last
    arg_min arg_min_null arg_min_nulls_last argmax argmin array_agg avg bit_and bit_or bit_xor bitstring_agg bool_and
    bool_or corr count count_if count_star countif covar_pop covar_samp decimal_average entropy favg first fsum
    geomean geometric_mean group_concat grouping grouping_id histogram histogram_exact kahan_sum kurtosis kurtosis_pop
    last list listagg mad max max_by mean median min min_by mode product quantile quantile_cont quantile_disc
    regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy reservoir_quantile sem
    skewness stddev stddev_pop stddev_samp string_agg sum sum_no_overflow sumkahan var_pop var_samp variance wavg
    weighted_avg"""
)
WINDOWS = _words(
    """cume_dist dense_rank fill first_value lag last_value lead nth_value ntile percent_rank rank rank_dense
    row_number"""
)
# Ours: answered by FlightKalam through macros of the engine (`duckdb_engine`).
OWN = _words(
    """snowflake_id uuid_v7 ulid current_actor current_user current_role current_catalog current_database current_schema
    session_user user version"""
)
# Column-like words that the engine turns into calls; the ones about the caller are ours.
CALLER_WORDS = _words("current_user session_user user current_role current_catalog current_schema")
CALLER_FUNCTIONS = CALLER_WORDS | _words("current_actor current_database")


@dataclass(frozen=True, slots=True)
class Bound:
    """An argument that must be a literal number no larger than `limit`.

    :param arguments: positions of the arguments that say how much is made.
    :param minus: position of an argument to subtract (the start of a range).
    """

    arguments: tuple[int, ...]
    limit: int
    span: bool = False


_CHARACTERS = 10_000
_ITEMS = 100_000
BOUNDED: dict[str, Bound] = {
    "repeat": Bound((1,), _CHARACTERS),
    "lpad": Bound((1,), _CHARACTERS),
    "rpad": Bound((1,), _CHARACTERS),
    "bar": Bound((3,), _CHARACTERS),
    "list_resize": Bound((1,), _ITEMS),
    "array_resize": Bound((1,), _ITEMS),
    "range": Bound((0, 1, 2), _ITEMS, span=True),
    "generate_series": Bound((0, 1, 2), _ITEMS, span=True),
}
FORMATS = frozenset({"format", "printf"})
# A width or precision of three digits at most, and none that comes from an argument.
_WIDE = {
    "format": re.compile(r"\{[^{}]*(?:\d{4,}|[{])"),
    "printf": re.compile(r"%[^a-zA-Z%]*(?:\d{4,}|\*)"),
}

SCALARS = OPERATORS | MATH | TEXT | TIME | NESTED | JSON | OTHER | AGGREGATES | WINDOWS | OWN | frozenset(BOUNDED) | FORMATS
TABLE_FUNCTIONS = _words("range generate_series unnest")

# Known to the engine, refused by name so that the reason is clear.
FORBIDDEN = _words(
    """getenv current_setting getvariable setseed nextval currval setval query query_table glob sniff_csv write_log
    sleep_ms pg_sleep txid_current in_search_path current_query current_query_id current_connection_id
    current_transaction_id json_serialize_sql json_deserialize_sql json_serialize_plan json_execute_serialized_sql
    sql_auto_complete checkpoint force_checkpoint seq_scan arrow_scan arrow_scan_dumb pandas_scan python_arrow_scan
    python_map_function repeat_row index_key stats summary which_secret current_schemas json_each json_tree"""
)
_FORBIDDEN_LIKE = re.compile(
    r"^(read_|pragma_|duckdb_|parquet_|pg_|test_|icu_|st_|variant_|__|enable_|disable_|has_|inet_|create_|collate_)|_scan$"
)


def forbidden(name: str) -> bool:
    """Whether the engine has a function of this name that a client may not call, as far as we know."""
    return name in FORBIDDEN or _FORBIDDEN_LIKE.search(name) is not None


def nearest(name: str) -> str | None:
    """An allowed name that looks like a misspelt one."""
    found = difflib.get_close_matches(name, SCALARS - OPERATORS, n=1, cutoff=0.8)
    return found[0] if found else None


def too_wide(name: str, template: str) -> bool:
    """Whether a format template asks for a width that no page has."""
    return _WIDE[name].search(template) is not None
