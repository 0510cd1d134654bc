"""Which row of a price table a call falls under, and the money for it."""

import math
import sys
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.policies.prices import MOST_LOOKUPS, Price, Prices

ONE, TWO, THREE, FOUR = (Price(float(n), 10.0 * n) for n in (1, 2, 3, 4))
FREE = Price(0.0, 0.0)

AMOUNTS = st.floats(0, 1_000)
TOKENS = st.integers(0, 10_000_000)
PRICES = st.builds(Price, AMOUNTS, AMOUNTS)
PROVIDERS = st.sampled_from(["chatgpt", "mirror", "local"])
PLAIN = st.sampled_from(["gpt-5", "gpt-5-mini", "maker/gpt-5", "o3", ""])
SNAPSHOTS = st.sampled_from(
    ["-2024-08-06", "-20250929", "@20250929", "@2025-09-29", "-latest", "-001", "-042"]
)
MODELS = st.one_of(PLAIN, st.builds(str.__add__, PLAIN, SNAPSHOTS))
NAMES = st.one_of(
    MODELS.filter(lambda model: bool(model) and "/" not in model),
    st.builds("{}/{}".format, PROVIDERS, MODELS.filter(bool)),
    PROVIDERS.map("{}/*".format),
)
ROWS = st.dictionaries(NAMES, PRICES, max_size=8)


@pytest.mark.parametrize("wrong", [-0.01, math.nan, math.inf, -math.inf, True, "1", None, 10**400])
@pytest.mark.parametrize("name", ["prompt", "completion"])
def test_a_price_is_a_finite_number_from_0(name: str, wrong: object) -> None:
    amounts: dict[str, object] = {"prompt": 1.0, "completion": 1.0, name: wrong}

    with pytest.raises(ValueError, match=f"^{name} must be a finite number from 0, in USD"):
        Price(**amounts)  # type: ignore[arg-type]


def test_what_a_price_cannot_be_is_shown() -> None:
    with pytest.raises(ValueError, match=r"not -2\.5$"):
        Price(-2.5, 0.0)


def test_a_price_in_quotes_is_told_with_them() -> None:
    with pytest.raises(ValueError, match=r"not '5'$"):
        Price("5", 1.0)  # type: ignore[arg-type]


def test_a_whole_number_is_a_price_too() -> None:
    price = Price(2, 0)

    assert price == Price(2.0, 0.0)
    assert isinstance(price.prompt, float) and isinstance(price.completion, float)


def test_the_largest_number_is_finite_too() -> None:
    assert Price(sys.float_info.max, 0.0).prompt == sys.float_info.max


def test_a_price_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        ONE.prompt = 2.0  # type: ignore[misc]


def test_a_price_is_for_a_million_tokens() -> None:
    assert Price(0.25, 2.0).cost(1_000_000, 0) == 0.25
    assert Price(0.25, 2.0).cost(0, 1_000_000) == 2.0
    assert Price(0.25, 2.0).cost(400, 50) == pytest.approx(0.0002)


@given(PRICES, TOKENS, TOKENS, TOKENS, TOKENS)
def test_two_calls_together_cost_what_each_does(
    price: Price, prompt: int, completion: int, more: int, longer: int
) -> None:
    together = price.cost(prompt + more, completion + longer)

    assert together == pytest.approx(price.cost(prompt, completion) + price.cost(more, longer))


@given(PRICES, TOKENS, TOKENS, TOKENS, TOKENS)
def test_more_tokens_never_cost_less_and_none_cost_less_than_nothing(
    price: Price, prompt: int, completion: int, more: int, longer: int
) -> None:
    few, many = price.cost(prompt, completion), price.cost(prompt + more, completion + longer)

    assert 0 <= few <= many < math.inf


@pytest.mark.parametrize(
    ("provider", "model", "found"),
    [
        ("chatgpt", "gpt-5", ONE),
        ("mirror", "gpt-5", TWO),
        ("mirror", "gpt-5-mini", THREE),
        ("chatgpt", "gpt-5-mini", None),
        ("mirror", "", THREE),
        ("", "", None),
    ],
    ids=[
        "its own row",
        "the model's row",
        "the provider's row",
        "no row",
        "no model, the provider's row",
        "nothing at all",
    ],
)
def test_the_strictest_row_that_fits_is_the_price(
    provider: str, model: str, found: Price | None
) -> None:
    prices = Prices(rows={"chatgpt/gpt-5": ONE, "gpt-5": TWO, "mirror/*": THREE})

    assert prices.find(provider, model) == found


@pytest.mark.parametrize("snapshot", ["-2024-08-06", "-20250929", "@20250929", "-latest", "-001"])
def test_a_dated_snapshot_has_the_price_of_what_it_is_one_of(snapshot: str) -> None:
    prices = Prices(rows={"chatgpt/gpt-5": ONE, "gpt-5-mini": TWO, "chatgpt/*": THREE})

    assert prices.find("chatgpt", f"gpt-5{snapshot}") == ONE
    assert prices.find("mirror", f"gpt-5-mini{snapshot}") == TWO
    assert prices.find("mirror", f"gpt-5{snapshot}") is None


@pytest.mark.parametrize(
    "model",
    [
        "gpt-5-mini",
        "gpt-5.1",
        "gpt-5-0709",
        "gpt-5-1001",
        "gpt-5-2024-13-06",
        "gpt-5-2024-08-32",
        "gpt-5-2024-00-06",
        "gpt-5-2024-0806",
        "gpt-5-1999-08-06",
        "gpt-5-202408060",
        "gpt-5-2024-08-06-fast",
        "gpt-5-latest-fast",
        "gpt-5-2024-08-06\n",
        "gpt-52024-08-06",
        "gpt-5-١٢٠",
        "gpt-5-preview",
        "gpt-5-101",
        "my-gpt-5",
    ],
)
def test_a_name_that_only_looks_alike_has_no_price(model: str) -> None:
    prices = Prices(rows={"chatgpt/gpt-5": ONE, "gpt-5": TWO})

    assert prices.find("chatgpt", model) is None


def test_one_snapshot_is_taken_off_not_two() -> None:
    prices = Prices(rows={"gpt-5": ONE, "gpt-5-001": TWO})

    assert prices.find("chatgpt", "gpt-5-001-latest") == TWO
    assert prices.find("chatgpt", "gpt-5-002-latest") is None


def test_a_snapshot_with_a_row_of_its_own_has_its_own_price() -> None:
    prices = Prices(rows={"chatgpt/gpt-4o": ONE, "gpt-4o-2024-05-13": TWO})

    assert prices.find("chatgpt", "gpt-4o-2024-05-13") == TWO
    assert prices.find("chatgpt", "gpt-4o-2024-08-06") == ONE


def test_a_resellers_model_is_not_priced_as_its_makers() -> None:
    prices = Prices(rows={"deepseek/deepseek-chat": ONE, "openrouter/qwen/qwen-plus": TWO})

    assert prices.find("openrouter", "deepseek/deepseek-chat") is None
    assert prices.find("openrouter", "deepseek/deepseek-chat-001") is None
    assert prices.find("openrouter", "qwen/qwen-plus") == TWO


@given(ROWS, PROVIDERS, PLAIN, SNAPSHOTS)
def test_a_snapshot_never_costs_what_neither_it_nor_its_model_costs(
    rows: dict[str, Price], provider: str, model: str, snapshot: str
) -> None:
    prices = Prices(rows=rows)
    own = rows.get(f"{provider}/{model}{snapshot}", rows.get(f"{model}{snapshot}"))

    found = prices.find(provider, model + snapshot)

    assert found == (own if own is not None else prices.find(provider, model))


@given(ROWS, ROWS, PROVIDERS, MODELS)
def test_any_row_over_a_table_wins_over_all_of_its_rows(
    over: dict[str, Price], under: dict[str, Price], provider: str, model: str
) -> None:
    prices = Prices(rows=over, base=Prices(rows=under))

    first, second = (Prices(rows=rows).find(provider, model) for rows in (over, under))

    assert prices.find(provider, model) == (first if first is not None else second)


def test_a_flat_rate_over_a_table_wins_over_the_table() -> None:
    prices = Prices(rows={"chatgpt/*": FREE}, base=Prices(rows={"chatgpt/gpt-5": ONE}))

    assert prices.cost("chatgpt", "gpt-5", 1_000, 1_000) == 0.0


def test_no_tokens_cost_nothing_even_where_the_price_is_unknown() -> None:
    assert Prices().cost("chatgpt", "gpt-5", 0, 0) == 0.0


@pytest.mark.parametrize(("prompt", "completion"), [(1, 0), (0, 1), (7, 7)])
def test_what_has_no_price_has_no_cost(prompt: int, completion: int) -> None:
    assert Prices().cost("chatgpt", "gpt-5", prompt, completion) is None


@given(ROWS, PROVIDERS, MODELS, TOKENS, TOKENS)
def test_a_cost_is_that_of_the_price_found(
    rows: dict[str, Price], provider: str, model: str, prompt: int, completion: int
) -> None:
    prices = Prices(rows=rows)
    price = prices.find(provider, model)

    cost = prices.cost(provider, model, prompt, completion)

    if prompt + completion == 0:
        assert cost == 0.0
    else:
        assert cost == (None if price is None else price.cost(prompt, completion))


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "/", "chatgpt/", "/gpt-5", " gpt-5", "chatgpt/ gpt-5", "chatgpt /gpt-5"),
        *("*", "*/gpt-5", "*/*", "gpt-*", "chatgpt/gpt-*", "chatgpt/ *"),
    ],
)
def test_a_row_that_could_never_be_found_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match='names no price: write "provider/model"') as refused:
        Prices(rows={"gpt-5": ONE, name: TWO})

    assert str(refused.value).startswith(repr(name))
    assert str(refused.value).endswith(
        '"model" for that model at any provider, or "provider/*" for all of its models'
    )


@given(ROWS, PROVIDERS, MODELS)
def test_capitals_make_no_difference(rows: dict[str, Price], provider: str, model: str) -> None:
    small, large = Prices(rows=rows), Prices(rows={name.upper(): of for name, of in rows.items()})

    found = small.find(provider, model)

    assert large.find(provider, model) == found
    assert large.find(provider.upper(), model.upper()) == found


def test_two_rows_that_differ_in_capitals_alone_are_refused() -> None:
    with pytest.raises(ValueError, match="'GPT-5' is there twice: capitals do not matter"):
        Prices(rows={"gpt-5": ONE, "GPT-5": TWO})


def test_a_table_is_what_it_was_made_of_whatever_becomes_of_that() -> None:
    rows = {"gpt-5": ONE}
    prices = Prices("2026-11-22", rows)

    rows["gpt-5"] = TWO
    rows["o3"] = TWO

    assert prices == Prices("2026-11-22", {"gpt-5": ONE})
    assert prices.find("chatgpt", "gpt-5") == ONE
    assert prices.find("chatgpt", "o3") is None


def test_looking_up_changes_nothing_that_can_be_seen() -> None:
    prices = Prices(rows={"gpt-5": ONE})

    answers = [prices.find("chatgpt", model) for model in ("gpt-5", "o3") * 2]

    assert answers == [ONE, None, ONE, None]
    assert prices == Prices(rows={"gpt-5": ONE})
    assert repr(prices) == repr(Prices(rows={"gpt-5": ONE}))


def test_no_flood_of_names_makes_a_table_grow_without_end() -> None:
    prices = Prices(rows={"gpt-5": ONE, "mirror/*": TWO})

    for number in range(3 * MOST_LOOKUPS):
        assert prices.find("mirror", f"model {number}") == TWO
        assert prices.find("mirror", "gpt-5") == ONE
        assert len(prices._found) <= MOST_LOOKUPS

    assert len(prices._found) > 1  # emptied at times, not each time
