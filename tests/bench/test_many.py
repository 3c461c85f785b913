import many
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.integers(0, 6), max_size=40))
def test_reuse_distance_is_the_number_of_other_models_asked_since(models):
    expected = []
    for place, model in enumerate(models):
        earlier = [i for i in range(place) if models[i] == model]
        expected.append(len(set(models[earlier[-1] + 1 : place])) if earlier else -1)
    assert many.reuse_distances(models) == expected


def test_requests_are_cold_only_where_the_copy_was_certainly_evicted():
    order = [0, 0, *range(1, 6), 0]  # four copies fit into nobody's memory twice over
    asked = [many.Asked(model, float(place), "") for place, model in enumerate(order)]
    kinds = many.kinds(asked, resident=2)
    assert list(kinds["warm: resident"]) == [1.0]
    assert list(kinds["cold: evicted before"]) == [7.0]
    assert len(kinds["cold: first request"]) == 6
