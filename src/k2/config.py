"""One typed settings tree, from defaults, `k2.toml` and `K2_*` environment variables (the later wins).

An environment variable is `K2_` and the path of the key in upper case: `K2_DATA`, `K2_STORE_PORT`,
`K2_EXCHANGES_BINANCE_WS_URL`. An unknown key or variable is an error that names the nearest known one.
"""

import os
import re
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_args, get_origin

import msgspec
from msgspec import Meta

from k2 import exchanges

_SECRETS = (
    (re.compile(r"(?<=://)[^\s'\"]*@"), "***@"),  # up to the last @: a password that was not encoded may hold one
    (re.compile(r"(?i)([?&;][\w.-]*(?:password|secret|token|key)[\w.-]*=)[^&;\s'\"]+"), r"\1***"),
    (re.compile(r"\b(k2_[0-9a-f]{8}_)[\w-]{8,}"), r"\1***"),
)
EXCHANGES = tuple(sorted(module.name for module in iter_modules(exchanges.__path__)))


class ConfigError(Exception):
    """The configuration cannot be used; the text names the key, where it stands, and what to write."""


class _Section(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in _masked(self).items())})"


class ExchangeConfig(_Section, frozen=True):
    """One venue."""

    enabled: Annotated[bool, Meta(description="Whether its feed handler is started.")] = True
    ws_url: Annotated[str, Meta(description="WebSocket address; empty: the venue's own.")] = ""
    rest_url: Annotated[str, Meta(description="REST address; empty: the venue's own.")] = ""
    ca_file: Annotated[str, Meta(description="A further certificate authority for TLS, such as a simulator's.")] = ""


if TYPE_CHECKING:

    class ExchangesConfig(_Section, frozen=True):
        """A section for each module in `k2.exchanges`."""

        def __getattr__(self, name: str) -> ExchangeConfig: ...

else:
    ExchangesConfig = msgspec.defstruct(
        "ExchangesConfig",
        [(name, ExchangeConfig, ExchangeConfig()) for name in EXCHANGES],
        bases=(_Section,),
        module=__name__,
        frozen=True,
    )


class FeedConfig(_Section, frozen=True):
    """Feed handlers. Times in seconds unless the name says ms."""

    linger_ms: Annotated[float, Meta(description="Shortest time between two durable appends: latency for CPU.")] = 3.0
    queue_frames: Annotated[int, Meta(description="Frames between socket and log; at the bound the socket waits.")] = (
        200_000
    )
    backoff_first: Annotated[float, Meta(description="First pause before dialling again.")] = 0.2
    backoff_cap: Annotated[float, Meta(description="Longest pause before dialling again.")] = 30.0
    silence: Annotated[
        float, Meta(description="Silence after which a connection is given up; 0: the venue's own limit.")
    ] = 0.0
    heal_delay: Annotated[float, Meta(description="Wait before REST is asked: a hole may be mere reordering.")] = 0.3
    heal_timeout: Annotated[float, Meta(description="Longest wait for one REST answer.")] = 10.0
    heal_give_up: Annotated[float, Meta(description="A hole unfilled for so long becomes unavailable.")] = 900.0
    reconnect_after: Annotated[
        float, Meta(description="Planned reconnect; 0: the venue's age limit, less a margin.")
    ] = 0.0


class LogConfig(_Section, frozen=True):
    """The embedded log. Nothing is dropped that a consumer has yet to read."""

    backend: Annotated[str, Meta(description="Which log: lmdb.")] = "lmdb"
    max_age_days: Annotated[float, Meta(description="Age at which records may be dropped; 0: never.")] = 30.0
    frames_max_age_days: Annotated[float, Meta(description="The same for raw frames.")] = 7.0
    max_gb: Annotated[
        float, Meta(description="Size of a stream beyond which its oldest may be dropped; 0: no limit.")
    ] = 0.0
    map_gb: Annotated[int, Meta(description="Address space (not disk) reserved for each stream.")] = 1024


class StoreConfig(_Section, frozen=True):
    """The hot store: where it listens, and as whom K2 speaks to it."""

    host: Annotated[str, Meta(description="Address to listen on and to connect to.")] = "127.0.0.1"
    port: Annotated[int, Meta(description="Port of ClickHouse's HTTP protocol.")] = 8123
    user: Annotated[str, Meta(description="The user that may write.")] = "default"
    password: Annotated[str, Meta(description="Its password (secret).")] = ""
    readonly_user: Annotated[str, Meta(description="The user that may only read.")] = "reader"
    readonly_password: Annotated[str, Meta(description="Its password (secret).")] = ""
    max_memory_mb: Annotated[int, Meta(description="Memory one statement may use.")] = 2048
    max_execution_s: Annotated[float, Meta(description="Seconds one statement may take.")] = 120.0
    keep_free_mb: Annotated[int, Meta(description="Free disk space below which the store writes nothing more.")] = 256
    trades_days: Annotated[
        float, Meta(description="Age at which trades leave the hot store once the cold tier has them; 0: never.")
    ] = 30.0
    frames_days: Annotated[float, Meta(description="The same for raw frames.")] = 7.0


class LoaderConfig(_Section, frozen=True):
    """The way from the log into the store."""

    interval_ms: Annotated[float, Meta(description="Shortest time between two looks into the log.")] = 3.0
    flush_s: Annotated[float, Meta(description="Shortest time between two moves of the live tail into parts.")] = 5.0
    max_batch_mb: Annotated[int, Meta(description="Most bytes read from the log at once.")] = 16


class TierConfig(_Section, frozen=True):
    """The cold tier: where its Iceberg tables lie, and how they are kept."""

    catalog: Annotated[
        str, Meta(description="Address of an Iceberg catalog (secret if it names a password); empty: SQLite in `data`.")
    ] = ""
    warehouse: Annotated[str, Meta(description="Where table files lie, as a URI; empty: a folder in `data`.")] = ""
    every_s: Annotated[
        float, Meta(description="Time between two offloads of a running platform, in seconds; 0: none.")
    ] = 900.0
    maintain_at: Annotated[
        str,
        Meta(
            description="Time of day (UTC) of the daily maintenance of a running platform; empty: none.",
            pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9])?$",
        ),
    ] = "02:00"
    slice_rows: Annotated[int, Meta(description="Most records in one commit: bounds the memory of an offload.")] = (
        250_000
    )
    target_file_mb: Annotated[int, Meta(description="Size that compaction makes files of.")] = 128
    snapshot_days: Annotated[float, Meta(description="Age at which snapshots expire.")] = 7.0
    snapshots_kept: Annotated[int, Meta(description="So many of the newest snapshots never expire.")] = 3
    orphan_hours: Annotated[
        float, Meta(description="Age at which files that no snapshot refers to are removed, in hours.")
    ] = 24.0
    seal_after_s: Annotated[float, Meta(description="A UTC day is closed so many seconds after its end.")] = 3600.0


class WebConfig(_Section, frozen=True):
    """The HTTP API, the live stream and the page."""

    host: Annotated[
        str, Meta(description="Address to listen on; other than loopback only once `k2 keys` has made a key.")
    ] = "127.0.0.1"
    port: Annotated[int, Meta(description="Port of the API, the stream and the page; 0: `k2 up` starts none.")] = 8080
    tls_cert: Annotated[str, Meta(description="Certificate chain file (PEM); with `tls_key`: HTTPS only.")] = ""
    tls_key: Annotated[str, Meta(description="File of the certificate's private key (PEM).")] = ""
    cors_origins: Annotated[
        str, Meta(description="Origins whose pages may call the API, separated by spaces; empty: none.")
    ] = ""
    rate_per_s: Annotated[float, Meta(description="Requests a second for each key (or address, without keys).")] = 50.0
    burst: Annotated[int, Meta(description="Requests that may come at once before the rate holds.")] = 200
    max_response_mb: Annotated[int, Meta(description="Size of an answer beyond which it is broken off; 0: none.")] = (
        4096
    )
    sql_s: Annotated[float, Meta(description="Seconds that a statement of `/v1/sql` may take.")] = 30.0
    sql_memory_mb: Annotated[int, Meta(description="Memory that a statement of `/v1/sql` may use.")] = 1024
    subscribers: Annotated[int, Meta(description="Live streams that may be open at once.")] = 512
    stream_buffer_kb: Annotated[
        int, Meta(description="Bytes on their way to one subscriber before it counts as slow.")
    ] = 1024
    heartbeat_s: Annotated[float, Meta(description="Time between two heartbeats of a quiet live stream.")] = 5.0


class SimConfig(_Section, frozen=True):
    """The simulator."""

    host: Annotated[str, Meta(description="Address to listen on.")] = "127.0.0.1"
    ws_port: Annotated[int, Meta(description="Port of the WebSocket side.")] = 8900
    rest_port: Annotated[int, Meta(description="Port of the REST side and of the control endpoint.")] = 8901
    rate: Annotated[float, Meta(description="Trades a second over all instruments.")] = 50.0
    seed: Annotated[int, Meta(description="Seed of the generator.")] = 1


class MetricsConfig(_Section, frozen=True):
    """Prometheus metrics: each process on its own port."""

    host: Annotated[str, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(description="Port of the first process, the others follow; 0: any free ones.")] = 9401
    trace: Annotated[
        str,
        Meta(description="Folder for the times of each batch of trades, as the latency bench joins them; empty: none."),
    ] = ""


class BudgetMemory(_Section, frozen=True):
    """Resident memory of a process at its largest, in MB of a million bytes."""

    feed: Annotated[float, Meta(description="Resident memory of each feed handler, at most, in MB.")] = 90.0
    loader: Annotated[float, Meta(description="The same of the loader.")] = 90.0
    store: Annotated[float, Meta(description="The same of the store.")] = 600.0
    archiver: Annotated[float, Meta(description="The same of the archiver.")] = 70.0
    job: Annotated[float, Meta(description="The same of what the archiver starts, while it runs.")] = 600.0
    web: Annotated[float, Meta(description="The same of the web.")] = 120.0
    supervisor: Annotated[float, Meta(description="The same of the supervisor.")] = 60.0
    all: Annotated[float, Meta(description="The same of all that stay, together: the archiver's jobs apart.")] = 900.0


class BudgetCpu(_Section, frozen=True):
    """Processor time of a process over a run, in percent of one core."""

    feed: Annotated[float, Meta(description="Processor time of each feed handler, at most, in percent of a core.")] = (
        15.0
    )
    loader: Annotated[float, Meta(description="The same of the loader.")] = 20.0
    store: Annotated[float, Meta(description="The same of the store.")] = 15.0
    archiver: Annotated[float, Meta(description="The same of the archiver with its jobs.")] = 10.0
    web: Annotated[float, Meta(description="The same of the web.")] = 5.0
    supervisor: Annotated[float, Meta(description="The same of the supervisor.")] = 3.0
    all: Annotated[float, Meta(description="The same of all together.")] = 60.0


class BudgetGrowth(_Section, frozen=True):
    """What a process may grow in a day before a slope is a leak."""

    memory_mb: Annotated[float, Meta(description="Growth of a process's own memory in 24 h, at most, in MB.")] = 48.0
    files: Annotated[float, Meta(description="Growth of a process's open files in 24 h, at most.")] = 24.0
    threads: Annotated[float, Meta(description="Growth of a process's threads in 24 h, at most.")] = 12.0


class BudgetConfig(_Section, frozen=True):
    """What `k2 burnin` holds the platform to, at 500 trades/s on two cores."""

    memory_mb: BudgetMemory = BudgetMemory()
    cpu_percent: BudgetCpu = BudgetCpu()
    growth_24h: BudgetGrowth = BudgetGrowth()


class Config(_Section, frozen=True):
    """The whole tree."""

    data: Annotated[str, Meta(description="Folder that holds everything K2 writes.")] = "k2-data"
    instruments: Annotated[
        str, Meta(description="File that lists what to capture; empty: the list that ships with K2.")
    ] = ""
    exchanges: ExchangesConfig = ExchangesConfig()
    feed: FeedConfig = FeedConfig()
    log: LogConfig = LogConfig()
    store: StoreConfig = StoreConfig()
    loader: LoaderConfig = LoaderConfig()
    tier: TierConfig = TierConfig()
    web: WebConfig = WebConfig()
    sim: SimConfig = SimConfig()
    metrics: MetricsConfig = MetricsConfig()
    budget: BudgetConfig = BudgetConfig()

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
    def cold_dir(self) -> Path:
        return self.data_dir / "cold"

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

    @property
    def web_url(self) -> str:
        return f"{'https' if self.web.tls_cert else 'http'}://{self.web.host}:{self.web.port}"

    @property
    def keys_file(self) -> Path:
        """API keys, hashed."""
        return self.data_dir / "keys.json"

    def exchange(self, name: str) -> ExchangeConfig:
        section: ExchangeConfig = getattr(self.exchanges, name)
        return section


class Setting(NamedTuple):
    """One leaf of the tree: where it stands, its type, default and meaning."""

    path: tuple[str, ...]
    type: type
    default: Any
    description: str


def settings(section: type[msgspec.Struct] = Config, path: tuple[str, ...] = ()) -> Iterator[Setting]:
    """Every setting of the tree."""
    for field in msgspec.structs.fields(section):
        kind, *notes = get_args(field.type) if get_origin(field.type) is Annotated else (field.type,)
        if issubclass(kind, msgspec.Struct):
            yield from settings(kind, (*path, field.name))
        else:
            yield Setting((*path, field.name), kind, field.default, next((n.description for n in notes), "") or "")


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
    known = {setting.path for setting in settings()}
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
        text = file.read_text()
    except FileNotFoundError:
        if required:
            raise ConfigError(f"{file} does not exist: name another with --config or K2_CONFIG") from None
        return {}
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text: {error}") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    import tomllib  # only here: a command that finds no file starts sooner

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{file} is not valid TOML: it is nested too deeply") from None


def _refuse_unknown(tree: dict[str, Any], known: Set[tuple[str, ...]], where: str) -> None:
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
    import difflib

    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.4)
    return f"; did you mean {close[0]}?" if close else ""


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def masked(config: Config) -> dict[str, Any]:
    """The effective tree as plain values, secrets replaced by `***`."""
    return _masked(config)


def _masked(section: msgspec.Struct) -> dict[str, Any]:
    def visit(node: Any) -> Any:
        if isinstance(node, dict):
            return {k: "***" if k.endswith("password") and v else visit(v) for k, v in node.items()}
        return without_secrets(node) if isinstance(node, str) else node

    plain: dict[str, Any] = visit(msgspec.to_builtins(section))
    return plain


def without_secrets(text: str) -> str:
    """The text with `***` for what may be a secret: users and passwords in addresses, keys and tokens in queries, API
    keys. For whatever is shown or written down and may quote a setting or a request."""
    for found, instead in _SECRETS:
        text = found.sub(instead, text)
    return text


def instruments(file: Path) -> dict[str, tuple[str, ...]]:
    """Exchange to symbols, from the instruments file. Raises ConfigError on anything else than a list of BASE-QUOTE."""
    tree = _read(file, required=True)
    for exchange, symbols in tree.items():
        if exchange not in EXCHANGES:
            raise ConfigError(f"{file}: unknown exchange {exchange}{_nearest(exchange, EXCHANGES)}")
        if not isinstance(symbols, list):
            raise ConfigError(f'{file}: {exchange}: write a list, such as ["BTC-USD", "ETH-USD"]')
        for symbol in symbols:
            parts = symbol.split("-") if isinstance(symbol, str) else []
            if len(parts) != 2 or not all(part.isalnum() and part == part.upper() for part in parts):
                raise ConfigError(f"{file}: {exchange}: {symbol!r} is not BASE-QUOTE in upper case, such as BTC-USD")
    return {exchange: tuple(dict.fromkeys(symbols)) for exchange, symbols in tree.items()}
