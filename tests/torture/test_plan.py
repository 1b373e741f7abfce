"""A seed decides what happens, and everything can happen."""

from tests.torture.plan import PEOPLE, How, Parts, plan_faults, plan_people

PARTS = Parts(
    ["xmpp-bridge", "xmpp-bridge-2", "xmpp-bridge-3"], ["message-store", "message-store-2"], ["ejabberd", "ejabberd-2"]
)


def test_the_same_seed_is_the_same_plan() -> None:
    assert plan_faults(7, 100, PARTS) == plan_faults(7, 100, PARTS)
    assert plan_people(7) == plan_people(7)
    assert plan_faults(7, 100, PARTS) != plan_faults(8, 100, PARTS)
    assert plan_people(7) != plan_people(8)


def test_so_many_faults_as_asked_and_first_everybody_joins() -> None:
    steps = plan_faults(1, 200, PARTS)

    assert sum(len(step.faults) for step in steps) == 200
    assert [step.faults[0].part for step in steps[:3]] == PARTS.further
    assert {len(step.faults) for step in steps} == {1, 2, 3}
    assert all(len({fault.part for fault in step.faults}) == len(step.faults) for step in steps)


def test_everything_happens_to_everybody() -> None:
    faults = [fault for step in plan_faults(1, 1000, PARTS) for fault in step.faults]

    everybody = {*PARTS.bridges, *PARTS.stores, *PARTS.nodes, *PARTS.apis, *PARTS.alone}
    for how in (How.KILL, How.PAUSE, How.RESTART):
        assert {fault.part for fault in faults if fault.how is how} == everybody
    for how in (How.CUT, How.HUSH):
        assert {(fault.part, fault.server) for fault in faults if fault.how is how} == {
            (part, server)
            for part in (*PARTS.bridges, *PARTS.stores, *PARTS.nodes, *PARTS.apis)
            for server in PARTS.servers(part)
        }
    silences = [fault.seconds for fault in faults if fault.how is How.HUSH and fault.part in PARTS.nodes]
    assert min(silences) < 23, "the other node is not given up"
    assert max(silences) > 38, "the other node is given up"


def test_one_node_alone_is_not_cut_off() -> None:
    alone = Parts(["xmpp-bridge"], ["message-store", "message-store-2"], ["prosody"])
    faults = [fault for step in plan_faults(1, 1000, alone) for fault in step.faults]

    assert {fault.how for fault in faults if fault.part == "prosody"} == {How.KILL, How.PAUSE, How.RESTART}


def test_friends_know_each_other_and_one_group_is_large() -> None:
    cast = plan_people(1)

    friends = {role.user_id: role.friends for role in cast.roles}
    assert len(friends) == PEOPLE
    assert all(name in friends[friend] for name, several in friends.items() for friend in several)
    assert [len(members) > 200 for members in cast.groups] == [True] + [False] * (PEOPLE // 4)
