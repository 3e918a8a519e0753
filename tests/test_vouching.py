from flarekd.norms import Facts
from flarekd.vouching import Vouching


def counted(*files, dataset="own", vouched=(1, 3, 10)):
    vouching = Vouching()
    for number, held in enumerate(files):
        organs = None if held is None else dict.fromkeys(held)
        facts = Facts(f"case_{number}", 300.0, organs, None, dataset, frozenset(vouched))
        vouching.add(facts)
    return vouching.doubts()


def test_classes_that_few_files_hold_are_told_with_their_counts():
    (told,) = counted({1, 3}, {1, 3}, {1, 10}, {1}, None)
    assert told.startswith(
        "data set 'own' counts as annotated with esophagus in all 4 cases, of which 1 hold it"
    )
    assert "annotated: present" in told


def test_several_classes_have_a_range():
    (told,) = counted({1, 3}, {1}, {1}, {1}, {1})
    assert "spleen, esophagus in all 5 cases, of which 0 to 1 hold it" in told


def test_what_half_of_the_files_hold_is_not_told():
    assert counted({1, 3, 10}, {1, 3, 10}, {1}, {1}) == []


def test_three_files_say_nothing():
    assert counted({1}, {1}, {1}) == []


def test_files_that_no_data_set_vouches_for_do_not_count():
    assert counted({1}, {1}, {1}, {1}, dataset="") == []
