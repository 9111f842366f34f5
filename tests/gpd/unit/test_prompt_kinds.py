"""Prompts of every kind: seeded, without a look at what must not be known, and of one space over all cities."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prompt_cities import city, kinds, with_values

from gpd.prompts import Prompts, SpatialPromptConfig, TemporalPromptConfig, compute_prompts, nearest_rows
from gpd.prompts.cities import Cities
from gpd.prompts.configs import SPATIAL_KINDS, TEMPORAL_KINDS, SpatialKind, TemporalKind
from gpd.prompts.knowledge_graph import build_graph
from gpd.prompts.masked_autoencoder import PATCH, day_patches
from gpd.prompts.retrieval import score_retrieval
from stcore.errors import Diverged, UserError
from stcore.graphs import Adjacency, GraphSeries

SPATIAL = tuple(kind for kind in SPATIAL_KINDS if kind != "file")
TEMPORAL = tuple(kind for kind in TEMPORAL_KINDS if kind != "file")
INDUCTIVE = ("structural", "graph-infomax")
"""Spatial kinds that are fitted to source cities alone."""


def spatial(kind: SpatialKind, **more: object) -> SpatialPromptConfig:
    return replace(SpatialPromptConfig(kind=kind, dim=16, epochs=2, walks=3), **more)  # pyright: ignore[reportArgumentType]


def temporal(kind: TemporalKind, **more: object) -> TemporalPromptConfig:
    return replace(TemporalPromptConfig(kind=kind, dim=16, steps=4, layers=1), **more)  # pyright: ignore[reportArgumentType]


def sources() -> list[GraphSeries]:
    return [city("a"), city("b", nodes=9, seed=1, step=1800)]


def target() -> GraphSeries:
    return city("t", nodes=6, seed=2, days=2)


def prompts(space: SpatialPromptConfig, time: TemporalPromptConfig, aim: GraphSeries | None, seed: int = 1) -> Prompts:
    return compute_prompts(sources(), aim, space, time, seed)


@pytest.mark.parametrize("kind", SPATIAL)
def test_spatial_prompts_are_seeded_and_finite(kind: SpatialKind) -> None:
    made = prompts(spatial(kind), temporal("none"), target())
    assert made.spatial.shape == (27, 16)
    assert made.spatial.dtype == np.float32
    assert made.names == ("a", "b", "t")
    assert prompts(spatial(kind), temporal("none"), target()).digest == made.digest
    changed = prompts(spatial(kind), temporal("none"), target(), seed=2)
    assert (changed.digest == made.digest) == (kind in ("structural", "none"))
    if kind != "none":
        assert float((made.spatial[:21] ** 2).mean()) == pytest.approx(1.0, rel=1e-5)
        assert len(np.unique(made.spatial.round(4), axis=0)) > 20


@pytest.mark.parametrize("kind", TEMPORAL)
def test_temporal_prompts_are_seeded_and_finite(kind: TemporalKind) -> None:
    made = prompts(spatial("none"), temporal(kind), target())
    assert made.temporal.shape == (27, 16)
    assert prompts(spatial("none"), temporal(kind), target()).digest == made.digest
    changed = prompts(spatial("none"), temporal(kind), target(), seed=2)
    assert (changed.digest == made.digest) == (kind in ("profile", "none"))


@pytest.mark.parametrize("kind", INDUCTIVE)
def test_nothing_spatial_is_fitted_to_the_target(kind: SpatialKind) -> None:
    alone = prompts(spatial(kind), temporal("none"), None)
    dense = np.random.default_rng(5).random((6, 6))
    other = replace(target(), adjacency=Adjacency.from_dense(dense))
    beside = prompts(spatial(kind), temporal("none"), other)
    np.testing.assert_array_equal(beside.without("t").spatial, alone.spatial)
    assert (beside.of("t").spatial != prompts(spatial(kind), temporal("none"), target()).of("t").spatial).any()


@pytest.mark.parametrize("kind", ["profile", "masked-autoencoder"])
def test_nothing_temporal_is_fitted_to_the_target(kind: TemporalKind) -> None:
    alone = prompts(spatial("none"), temporal(kind), None)
    beside = prompts(spatial("none"), temporal(kind), with_values(target(), 1e3 * target().values[::-1]))
    np.testing.assert_array_equal(beside.without("t").temporal, alone.temporal)


@pytest.mark.parametrize(("space", "time"), [("structural", "profile"), ("graph-infomax", "masked-autoencoder")])
def test_the_same_city_under_another_name_has_the_same_prompts(space: SpatialKind, time: TemporalKind) -> None:
    made = compute_prompts(sources(), replace(sources()[0], name="twin"), spatial(space), temporal(time))
    np.testing.assert_allclose(made.of("twin").spatial, made.of("a").spatial, atol=1e-5)
    np.testing.assert_allclose(made.of("twin").temporal, made.of("a").temporal, atol=1e-5)
    np.testing.assert_array_equal(nearest_rows(made, "twin"), np.arange(12))


def test_units_and_steps_of_a_city_do_not_move_its_profiles() -> None:
    scaled = replace(with_values(target(), 60.0 * target().values), units=("km/h",))
    base = prompts(spatial("none"), temporal("profile", level="relative"), target())
    other = prompts(spatial("none"), temporal("profile", level="relative"), scaled)
    np.testing.assert_allclose(other.temporal, base.temporal, atol=1e-3)
    native = prompts(spatial("none"), temporal("profile", level="native"), scaled)
    assert np.abs(native.of("t").temporal - base.of("t").temporal).max() > 0.1


@pytest.mark.parametrize(
    ("space", "time"),
    [
        (spatial("union-node2vec", epochs=30, dim=32), temporal("none")),
        (spatial("knowledge-graph", epochs=20, dim=32, bins=4), temporal("none")),
        (spatial("none"), temporal("profile")),
        (spatial("none"), temporal("masked-autoencoder", steps=120, dim=32, batch=32)),
    ],
)
def test_nearest_nodes_of_other_cities_are_of_the_same_kind(
    space: SpatialPromptConfig, time: TemporalPromptConfig
) -> None:
    aim = city("t", nodes=18, seed=2, days=2)
    made, kind = prompts(space, time, aim), kinds([*sources(), aim])
    # By chance a third of 18; 12 and more of them in 4 of 1000 cases.
    assert (kind[nearest_rows(made, "t")] == kind[made.rows_of("t")]).mean() >= 2 / 3


def test_prompts_of_a_file_are_taken_as_they_are(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(27, 5))
    np.save(tmp_path / "own.npy", values)
    own = str(tmp_path / "own.npy")
    made = prompts(SpatialPromptConfig(kind="file", file=own), TemporalPromptConfig(kind="file", file=own), target())
    np.testing.assert_array_equal(made.spatial, values.astype(np.float32))
    np.testing.assert_array_equal(made.temporal, made.spatial)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((26, 5)), r"own.npy: 26 rows; expected 27, one for each node \(a 12, b 9, t 6\)"),
        (np.zeros(27), r"own.npy: float64 of shape \(27,\); expected real numbers \(node, number\)"),
        (np.zeros((27, 2), complex), r"own.npy: complex128 of shape \(27, 2\)"),
        (np.where(np.eye(27)[:, :2] == 1, np.nan, 0.0), "own.npy: row 0, column 0 is nan; expected finite numbers"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, values: np.ndarray, message: str) -> None:
    np.save(tmp_path / "own.npy", values)
    config = SpatialPromptConfig(kind="file", file=str(tmp_path / "own.npy"))
    with pytest.raises(UserError, match=message):
        prompts(config, temporal("none"), target())


def test_a_pickle_of_objects_is_never_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "own.npy", np.array([[{}]] * 27, dtype=object))
    with pytest.raises(UserError, match="array of Python objects; expected numbers"):
        prompts(SpatialPromptConfig(kind="file", file=str(tmp_path / "own.npy")), temporal("none"), target())


def test_the_knowledge_graph_ties_cities_by_shared_bins() -> None:
    cities = Cities.gather(sources(), target())
    graph = build_graph(cities, spatial("knowledge-graph", bins=4, neighbours=2))
    triples, relation = graph.triples(), graph.relations
    adjacent = triples[triples[:, 1] == relation["adjacent"]]
    edges = [each.adjacency.edges + first for first, each in zip(cities.offsets, cities.series, strict=True)]
    np.testing.assert_array_equal(adjacent[:, [0, 2]], np.unique(np.concatenate(edges, axis=1).T, axis=0))
    near = triples[triples[:, 1] == relation["near"]]
    np.testing.assert_array_equal(np.bincount(near[:, 0], minlength=27)[:27], 2)
    assert (cities.city_of_row[near[:, 0]] == cities.city_of_row[near[:, 2]]).all()
    degree = triples[triples[:, 1] == relation["attribute 0"]]
    assert set(degree[:, 0]) == set(range(27))
    shared = [set(degree[cities.city_of_row[degree[:, 0]] == number, 2]) for number in range(2)]
    assert shared[0] & shared[1]
    assert triples[:, 2].max() < graph.entities


def test_bins_are_quantiles_of_the_sources() -> None:
    config = spatial("knowledge-graph", bins=4)
    calm, wild = (build_graph(Cities.gather(sources(), with_values(target(), factor * target().values)), config)
                  for factor in (1.0, -1e4))  # fmt: skip
    assert calm.entities == wild.entities
    of_sources = [{tuple(row) for row in graph.triples() if row[0] < 21 and row[1] >= 3} for graph in (calm, wild)]
    assert of_sources[0] == of_sources[1]


def places(tmp_path: Path, text: str) -> SpatialPromptConfig:
    (tmp_path / "places.csv").write_text(text)
    return spatial("knowledge-graph", places=str(tmp_path / "places.csv"))


def test_places_join_the_knowledge_graph(tmp_path: Path) -> None:
    text = (
        "city,node,relation,entity\na,0,beside,school\nt,5,beside,school\nt,5,within,centre\nelsewhere,1,beside,bar\n"
    )
    cities = Cities.gather(sources(), target())
    plain = build_graph(cities, spatial("knowledge-graph"))
    graph = build_graph(cities, places(tmp_path, text))
    beside = graph.triples()[graph.triples()[:, 1] == graph.relations["place beside"]]
    assert beside[:, [0, 2]].tolist() == [[0, plain.entities], [26, plain.entities]]
    assert graph.entities == plain.entities + 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "town,node,relation,entity\n",
            "columns 'town, node, relation, entity'; expected city, node, relation, entity",
        ),
        ("city,node,relation,entity\na,0,beside\n", "places.csv: line 2: 3 fields; expected 4"),
        ("city,node,relation,entity\na,99,beside,bar\n", "places.csv: line 2: no node '99' in 'a'; expected one of"),
        ("city,node,relation,entity\nc,1,beside,bar\n", "no line tells of a, b, t; expected triples of these cities"),
    ],
)
def test_places_that_do_not_fit_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_graph(Cities.gather(sources(), target()), places(tmp_path, text))


@pytest.mark.parametrize("triples", ["transe", "complex", "rotate"])
def test_every_model_of_triples_gives_prompts_of_the_size_asked_for(triples: str) -> None:
    made = prompts(spatial("knowledge-graph", triples=triples), temporal("none"), target())
    assert made.spatial.shape == (27, 16)
    assert float((made.spatial[:21] ** 2).mean()) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("step", [300, 600, 1800, 3600])
def test_patches_are_hours_whatever_the_step(step: int) -> None:
    patches, known = day_patches(city("a", nodes=2, days=2, step=step, noise=0.0))
    assert patches.shape == (2, 24, PATCH, 2)
    assert known.all()
    series = city("a", nodes=2, days=2, step=step, noise=0.0).values[:, :, 0]
    scaled = (series - series.mean(0)) / series.std(0)
    hours = scaled.reshape(2, 24, 3600 // step, 2)
    np.testing.assert_allclose(patches.mean(2), hours.mean(2), atol=1e-5)


def test_patches_of_a_fine_step_are_means() -> None:
    base = city("a", nodes=2, days=1, step=150)
    patches, _ = day_patches(base)
    scaled = (base.values[:, :, 0] - base.values[:, :, 0].mean(0)) / base.values[:, :, 0].std(0)
    np.testing.assert_allclose(patches[0], scaled.reshape(24, 12, 2, 2).mean(2), atol=1e-5)


def test_an_autoencoder_needs_hours() -> None:
    daily = GraphSeries(values=np.ones((9, 2, 1)), adjacency=Adjacency.empty(2), step_seconds=86_400, name="slow")
    with pytest.raises(UserError, match="slow: step of 86400 seconds; expected a part of an hour"):
        day_patches(daily)


def test_a_training_that_diverges_says_so() -> None:
    with pytest.raises(Diverged, match="temporal prompts: step"):
        prompts(spatial("none"), temporal("masked-autoencoder", learning_rate=1e30, steps=20), target())


def test_prompts_survive_their_file(tmp_path: Path) -> None:
    made = prompts(spatial("structural"), temporal("profile"), target())
    made.write(tmp_path / "prompts.safetensors")
    back = Prompts.read(tmp_path / "prompts.safetensors")
    assert back.digest == made.digest
    assert back.metadata["spatial"]["kind"] == "structural"
    assert back.metadata["seed"] == 1
    assert back.metadata["target"] == "t"
    assert set(back.metadata["data"]) == {"a", "b", "t"}
    assert back.metadata == made.metadata
    other = compute_prompts(sources(), with_values(target(), target().values + 1), spatial("none"), temporal("none"))
    assert other.metadata["data"]["t"] != made.metadata["data"]["t"]
    assert other.metadata["data"]["a"] == made.metadata["data"]["a"]


def test_a_checkpoint_of_something_else_is_no_file_of_prompts(tmp_path: Path) -> None:
    from stcore.training.checkpoint import save_checkpoint

    save_checkpoint(tmp_path / "rows.safetensors", {}, {"kind": "rows"})
    with pytest.raises(UserError, match="holds rows; expected a file of prompts"):
        Prompts.read(tmp_path / "rows.safetensors")


def test_rows_are_found_by_city_and_node() -> None:
    made = prompts(spatial("structural"), temporal("profile"), target())
    assert (len(made.of("t")), len(made.without("t")), len(made.without("x"))) == (6, 21, 27)
    some = made.matched(["t", "a"], ["5", "0"])
    np.testing.assert_array_equal(some.spatial, made.spatial[[26, 0]])
    assert some.cities == ("t", "a")
    with pytest.raises(UserError, match="no city 'x' among a, b, t"):
        made.of("x")
    with pytest.raises(UserError, match=r"none for node '9' of 't' \(1 such\)"):
        made.matched(["t"], ["9"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cities": ("a", "b")}, r"spatial of shape \(1, 1\) for 2 cities and 1 nodes; expected a row for each"),
        ({"temporal": np.array([[np.inf]], np.float32)}, "temporal of node '0' of 'a' is not finite"),
    ],
)
def test_prompts_that_do_not_hold_together_are_refused(change: dict[str, object], message: str) -> None:
    one = np.ones((1, 1), np.float32)
    with pytest.raises(UserError, match=message):
        Prompts(**{"spatial": one, "temporal": one, "cities": ("a",), "nodes": ("0",), **change})  # pyright: ignore[reportArgumentType]


def test_cities_without_a_source_or_with_one_name_are_refused() -> None:
    with pytest.raises(UserError, match="no source city"):
        compute_prompts([], target())
    with pytest.raises(UserError, match="two cities are called 'a'"):
        compute_prompts([city("a")], city("a"))
    twice = np.ones((2, 1), np.float32)
    with pytest.raises(UserError, match="occurs twice"):
        Prompts(spatial=twice, temporal=twice, cities=("a", "a"), nodes=("0", "0"))


def test_retrieval_is_scored_against_what_models_do() -> None:
    random = np.random.default_rng(0)
    place = random.normal(size=(30, 2))
    made = Prompts(spatial=place.astype(np.float32), temporal=np.ones((30, 1), np.float32),
                   cities=("a",) * 15 + ("b",) * 15, nodes=tuple(map(str, range(30))))  # fmt: skip
    far = np.linalg.norm(place[:, None] - place, axis=2)
    perfect = score_retrieval(made, far)
    assert (perfect.regret, perfect.correlation) == (0.0, pytest.approx(1.0))
    assert perfect.nearest_mae == perfect.best_mae < perfect.random_mae
    reverse = score_retrieval(made, -far)
    assert (reverse.regret, reverse.correlation) == (1.0, pytest.approx(-1.0))
    chance = score_retrieval(made, random.random((30, 30)))
    assert abs(chance.regret - 0.5) < 4 * chance.chance
    # The ranks 0 to 1 of 15 models, drawn for each of 30 nodes.
    assert chance.chance == pytest.approx(np.linspace(0, 1, 15).std() / np.sqrt(30))


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (SpatialPromptConfig, {"dim": 0}, "spatial.dim: 0; expected 1 or more"),
        (SpatialPromptConfig, {"context": 30}, "spatial.context: 30; expected at most the walk's length"),
        (SpatialPromptConfig, {"q": 0.0}, "spatial.q: 0.0; expected more than 0"),
        (SpatialPromptConfig, {"kind": "knowledge-graph", "triples": "rotate", "dim": 7}, "an even number for rotate"),
        (SpatialPromptConfig, {"kind": "file"}, "spatial.file: none; expected the path of an .npy array"),
        (TemporalPromptConfig, {"file": "x.npy"}, "temporal.file: x.npy with temporal.kind profile"),
        (TemporalPromptConfig, {"kind": "masked-autoencoder", "dim": 10}, "temporal.dim: 10; expected a multiple of"),
        (TemporalPromptConfig, {"hidden_share": 1.0}, "temporal.hidden-share: 1.0; expected between 0 and 1"),
    ],
)
def test_configurations_are_checked(config: type, change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config(**change)
