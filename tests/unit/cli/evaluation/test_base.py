from __future__ import annotations

from faasmoe.cli.evaluation.base import ServedParameters, base_of


def made(platform: str, option: list[str] | None) -> tuple[dict, tuple[str, ...]]:
    served = ServedParameters(platform=platform, platform_option=option)
    base = base_of(None, {"tenants": 2}, trials=1, served=served, seed=0)
    return dict(base.settings), base.orders.platform_option


def test_results_name_the_platform_and_its_own_options_where_they_are_not_the_default() -> None:
    settings, option = made("local", None)
    assert settings == {
        "tenants": 2, "block_size": None, "keep_alive": 60.0, "memory_budget": None, "dtype": "auto", "seed": 0
    }  # fmt: skip
    assert option == ()
    chosen, option = made("local", ["zygote_keep_alive=5"])
    assert chosen == settings | {"platform_option": "zygote_keep_alive=5"}
    assert option == ("zygote_keep_alive=5",)
    assert made("inline", None)[0] == settings | {"platform": "inline"}
