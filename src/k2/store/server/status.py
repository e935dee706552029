"""HTTP status for each ClickHouse error code, as ClickHouse's own HTTP handler maps them, and the errors we raise."""

from k2.store import StoreError

_GROUPS = {
    400: (6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123, 167, 168, 223, 321, 376, 427, 441, 675, 676),
    401: (194,),
    403: (192, 193, 497, 512, 516),
    404: (46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511),
    408: (159,),
    411: (381,),
    413: (229,),
    501: (48,),
    503: (76, 209, 439),
}
_STATUS = {code: status for status, codes in _GROUPS.items() for code in codes}


def http_status(code: int) -> int:
    """The HTTP status of an error code; 500 for those that have none of their own."""
    return _STATUS.get(code, 500)


def refusal(code: int, name: str, message: str) -> StoreError:
    """An error of the HTTP interface itself, worded as ClickHouse words its own."""
    return StoreError(f"Code: {code}. DB::Exception: {message}. ({name})", code)
