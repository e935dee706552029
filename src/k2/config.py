"""One typed settings tree, from defaults, `k2.toml` and `K2_*` environment variables (the later wins).

An environment variable is `K2_` and the path of the key in upper case: `K2_DATA`, `K2_STORE_PORT`,
`K2_EXCHANGES_BINANCE_WS_URL`. An unknown key or variable is an error that names the nearest known one.
"""

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

EXCHANGES = ("binance", "coinbase", "kraken")


class ConfigError(Exception):
    """The configuration cannot be used; the text names the key, where it stands, and what to write."""


class _Section(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    pass


class ExchangeConfig(_Section, frozen=True):
    """One venue. Empty URLs mean the venue's own production addresses."""

    enabled: bool = True
    ws_url: str = ""
    rest_url: str = ""
    ca_file: str = ""  # extra certificate authority for wss and https, e.g. of a simulator


class ExchangesConfig(_Section, frozen=True):
    binance: ExchangeConfig = ExchangeConfig()
    coinbase: ExchangeConfig = ExchangeConfig()
    kraken: ExchangeConfig = ExchangeConfig()


class FeedConfig(_Section, frozen=True):
    """Feed handlers. Times in seconds unless the name says ms."""

    linger_ms: float = 4.0  # shortest time between two durable appends: trades latency for CPU
    queue_frames: int = 200_000  # frames between socket and log; at the bound the socket is paused
    backoff_first: float = 0.2
    backoff_cap: float = 30.0
    silence: float = 0.0  # 0: the venue's own limit
    heal_delay: float = 0.3  # a hole may be mere reordering: REST is asked only after this
    heal_timeout: float = 10.0  # one REST request
    heal_give_up: float = 900.0  # a hole that REST cannot fill for so long becomes `unavailable`
    reconnect_after: float = 0.0  # planned reconnect; 0: the venue's own age limit, less a margin


class LogConfig(_Section, frozen=True):
    """The embedded log. Nothing is dropped that a consumer has yet to read."""

    backend: str = "lmdb"
    max_age_days: float = 30.0
    frames_max_age_days: float = 7.0
    max_gb: float = 0.0  # per stream; 0: no limit
    map_gb: int = 1024  # address space, not disk


class StoreConfig(_Section, frozen=True):
    """The hot store: where it listens, and as whom K2 speaks to it."""

    host: str = "127.0.0.1"
    port: int = 8123
    user: str = "default"
    password: str = ""
    readonly_user: str = "reader"
    readonly_password: str = ""
    max_memory_mb: int = 2048
    max_execution_s: float = 120.0


class LoaderConfig(_Section, frozen=True):
    """The way from the log into the store."""

    interval_ms: float = 10.0  # shortest time between two inserts into the live tail
    flush_s: float = 1.0  # shortest time between two moves of the tail into MergeTree parts
    max_batch_mb: int = 16


class SimConfig(_Section, frozen=True):
    """The simulator. `rate`: trades a second over all instruments."""

    host: str = "127.0.0.1"
    ws_port: int = 8900
    rest_port: int = 8901
    rate: float = 50.0
    seed: int = 1


class MetricsConfig(_Section, frozen=True):
    """Prometheus metrics: each process on its own port from `port` on; 0 takes any free one."""

    host: str = "127.0.0.1"
    port: int = 9401


class Config(_Section, frozen=True):
    """The whole tree. `data` holds everything that K2 writes."""

    data: str = "k2-data"
    instruments: str = ""  # empty: the list that ships with K2
    exchanges: ExchangesConfig = ExchangesConfig()
    feed: FeedConfig = FeedConfig()
    log: LogConfig = LogConfig()
    store: StoreConfig = StoreConfig()
    loader: LoaderConfig = LoaderConfig()
    sim: SimConfig = SimConfig()
    metrics: MetricsConfig = MetricsConfig()

    @property
    def data_dir(self) -> Path:
        return Path(self.data).expanduser().absolute()

    @property
    def log_dir(self) -> Path:
        return self.data_dir / "log"

    @property
    def store_dir(self) -> Path:
        return self.data_dir / "store"

    @property
    def run_dir(self) -> Path:
        """Process status files and the processes' own logs."""
        return self.data_dir / "run"

    @property
    def instruments_file(self) -> Path:
        return Path(self.instruments).expanduser() if self.instruments else Path(__file__).parent / "instruments.toml"

    @property
    def store_url(self) -> str:
        return f"http://{self.store.host}:{self.store.port}"

    def exchange(self, name: str) -> ExchangeConfig:
        section: ExchangeConfig = getattr(self.exchanges, name)
        return section


def leaves(config: type[msgspec.Struct] = Config, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every setting of the tree: its path and its type."""
    for field in msgspec.structs.fields(config):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from leaves(field.type, (*path, field.name))
        else:
            yield (*path, field.name), field.type


def variable(path: tuple[str, ...]) -> str:
    """The environment variable of a setting."""
    return "K2_" + "_".join(path).upper()


def load(file: Path | None = None, environ: Mapping[str, str] | None = None, **overrides: Any) -> Config:
    """Read the configuration. `file` None: `$K2_CONFIG`, else `k2.toml` here if it exists.

    `overrides` are dotted paths with `__` for the dot (`store__port=9000`), from the command line. Raises ConfigError.
    """
    environ = os.environ if environ is None else environ
    named = file or (Path(environ["K2_CONFIG"]) if environ.get("K2_CONFIG") else None)
    tree = _read(named or Path("k2.toml"), required=named is not None)
    known = dict(leaves())
    _refuse_unknown(tree, known, str(named or "k2.toml"))
    variables = {variable(path): path for path in known}
    for name, text in environ.items():
        if not name.startswith("K2_") or name == "K2_CONFIG":
            continue
        if name not in variables:
            raise ConfigError(f"environment variable {name} is not a setting{_nearest(name, variables)}")
        _put(tree, variables[name], text)
    for dotted, value in overrides.items():
        if value is not None:
            _put(tree, tuple(dotted.split("__")), value)
    try:
        return msgspec.convert(tree, Config, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"configuration: {error}") from None


def _read(file: Path, required: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except FileNotFoundError:
        if required:
            raise ConfigError(f"{file} does not exist: name another with --config or K2_CONFIG") from None
        return {}
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from None


def _refuse_unknown(tree: dict[str, Any], known: Mapping[tuple[str, ...], Any], where: str) -> None:
    dotted = {".".join(path) for path in known}
    sections = {".".join(path[:i]) for path in known for i in range(1, len(path))}

    def visit(node: dict[str, Any], prefix: tuple[str, ...]) -> None:
        for key, value in node.items():
            path = ".".join((*prefix, key))
            if isinstance(value, dict) and path in sections:
                visit(value, (*prefix, key))
            elif path not in dotted:
                raise ConfigError(f"{where}: unknown key {path}{_nearest(path, dotted | sections)}")

    visit(tree, ())


def _nearest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.4)
    return f"; did you mean {close[0]}?" if close else ""


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def masked(config: Config) -> dict[str, Any]:
    """The effective tree as plain values, secrets replaced by `***`."""

    def visit(node: Any) -> Any:
        if isinstance(node, dict):
            return {k: "***" if k.endswith("password") and v else visit(v) for k, v in node.items()}
        return node

    plain: dict[str, Any] = visit(msgspec.to_builtins(config))
    return plain


def instruments(file: Path) -> dict[str, tuple[str, ...]]:
    """Exchange to symbols, from the instruments file. Raises ConfigError on anything else than a list of BASE-QUOTE."""
    tree = _read(file, required=True)
    for exchange, symbols in tree.items():
        if exchange not in EXCHANGES:
            raise ConfigError(f"{file}: unknown exchange {exchange}{_nearest(exchange, EXCHANGES)}")
        for symbol in symbols if isinstance(symbols, list) else [symbols]:
            parts = symbol.split("-") if isinstance(symbol, str) else []
            if len(parts) != 2 or not all(part.isalnum() and part == part.upper() for part in parts):
                raise ConfigError(f"{file}: {exchange}: {symbol!r} is not BASE-QUOTE in upper case, such as BTC-USD")
    return {exchange: tuple(dict.fromkeys(symbols)) for exchange, symbols in tree.items()}
