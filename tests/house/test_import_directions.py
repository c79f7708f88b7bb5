"""The house as `docs/architecture.md` draws it: imports point one way, downward.

Imports inside functions count, and so do those under ``TYPE_CHECKING``: a direction that is only
kept at run time is not kept.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "platform" / "outspike"

#: Bottom floor first. A room may import rooms on its own floor and below, never above; what the
#: rooms of one floor import of each other must not go in a circle.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "timebase", "recording", "config", "recipes", "urls"}),
    frozenset({"events", "video"}),
    frozenset({"store", "datasets", "synth"}),
    frozenset({"detectors", "encoders"}),
    frozenset({"scoring"}),
    frozenset({"evaluate"}),
    frozenset({"registry"}),
    frozenset({"app", "cluster"}),  # logging, exit codes and Ray sessions: what jobs share
    frozenset({"extract", "train", "tune", "predict"}),
    frozenset({"cli", "cli_events", "cli_extract", "cli_import", "cli_store", "demo"}),
)
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}

RAY_ROOMS = {"cluster", "extract", "train", "tune", "predict"}
TORCH_FREE = {*FLOORS[0], *FLOORS[1], *FLOORS[2]}
STORAGE_FREE = {"events", "detectors"}
STORAGE = {"zarr", "deltalake", "fsspec", "s3fs"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """First-level module or package below ``outspike``; empty for the package itself."""
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if part == "__init__" else part


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything ``path`` imports, at any depth."""
    package = ("outspike", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                yield node.lineno, f"{origin}.{alias.name}"


def own_rooms(path: Path) -> Iterator[tuple[int, str]]:
    """Line and room of every import of the package itself."""
    for line, name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "outspike" and len(parts) > 1:
            yield line, parts[1]


def violations(allowed: set[str], names: set[str], rooms: set[str] | None = None) -> list[str]:
    """Places outside ``allowed`` rooms (or inside ``rooms``) that import one of ``names``."""
    found = []
    for path in modules():
        room = room_of(path)
        if room in allowed or (rooms is not None and room not in rooms):
            continue
        for line, name in imports_of(path):
            if name.split(".")[0] in names:
                found.append(f"{path.relative_to(PACKAGE)}:{line} imports {name}")
    return found


def test_every_room_has_a_floor() -> None:
    """A new room must be placed before it can be used."""
    unplaced = {room_of(path) for path in modules()} - set(FLOOR_OF) - {""}
    assert not unplaced, f"place these rooms on a floor: {sorted(unplaced)}"


def test_imports_point_downward() -> None:
    """No room imports one on a higher floor."""
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} ({room_of(path)}) imports {room} from above"
        for path in modules()
        for line, room in own_rooms(path)
        if room_of(path)
        and room_of(path) != room
        and FLOOR_OF.get(room, -1) > FLOOR_OF.get(room_of(path), len(FLOORS))
    ]
    assert not wrong, "\n".join(wrong)


def test_rooms_of_one_floor_do_not_go_in_circles() -> None:
    """Neighbours may use each other one way only."""
    edges: dict[str, set[str]] = {room: set() for room in FLOOR_OF}
    for path in modules():
        if room_of(path):
            edges[room_of(path)].update(
                room for _, room in own_rooms(path) if room in FLOOR_OF and room != room_of(path)
            )
    for room in edges:
        seen, open_rooms = set[str](), list(edges[room])
        while open_rooms:
            current = open_rooms.pop()
            assert current != room, f"{room} imports itself by way of others"
            if current not in seen:
                seen.add(current)
                open_rooms.extend(edges[current])


@pytest.mark.parametrize(
    ("names", "allowed", "rooms"),
    [
        pytest.param({"ray"}, RAY_ROOMS, None, id="ray"),
        pytest.param({"mlflow"}, {"registry"}, None, id="mlflow"),
        pytest.param({"torch", "transformers", "spikingjelly"}, set(), TORCH_FREE, id="torch"),
        pytest.param(STORAGE, set(), STORAGE_FREE, id="storage"),
        pytest.param({"torchvision", "torchaudio"}, set(), None, id="torchvision"),
    ],
)
def test_heavy_libraries_stay_in_their_rooms(
    names: set[str], allowed: set[str], rooms: set[str] | None
) -> None:
    """Ray where jobs run on a cluster, MLflow in the registry, torch from detectors up."""
    wrong = violations(allowed, names, rooms)
    assert not wrong, "\n".join(wrong)


#: The one reader of pickles, which hands out nothing that runs.
SAFE_PICKLE = PACKAGE / "datasets" / "safe_pickle.py"


def test_no_pickle_is_read() -> None:
    """Checkpoints and labels from elsewhere are never unpickled, but for the reader that refuses
    every name it does not know.
    """
    wrong = []
    for path in modules():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
                continue
            readers = {"load", "loads"} | ({"Unpickler"} if path != SAFE_PICKLE else set())
            if node.value.id == "pickle" and node.attr in readers:
                wrong.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert not wrong, wrong
