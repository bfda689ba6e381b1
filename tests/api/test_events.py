"""Events: all of them, in order, taken up where a stream broke off."""

import json
import socket
import threading
import time

import httpx2
import pytest
import uvicorn

from bitfront.api import feed


def parsed(text):
    """`(id, kind, body)` of each event of a stream."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.splitlines() if not line.startswith(":")
        )
        if "id" in fields:
            found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


@pytest.fixture
def server(bench):
    """The application on a port of this machine, for streams that go on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = uvicorn.Config(
        bench.app(), port=port, log_level="error", timeout_graceful_shutdown=1, lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def test_a_finished_study_sends_all_its_events_and_ends(client, bench, done):
    answer = client.get(f"/v1/studies/{done.id}/events")
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    events = parsed(answer.text)
    assert [event[0] for event in events] == [e.id for e in bench.store.activity.events(done.id)]
    assert events[0][1:] == ("state", {"state": "WAITING", "at": events[0][2]["at"]})
    assert events[-1][2]["state"] == "COMPLETE"


@pytest.mark.parametrize("way", ["header", "query"])
def test_a_stream_is_taken_up_where_it_broke_off(client, done, way):
    url = f"/v1/studies/{done.id}/events"
    whole = parsed(client.get(url).text)
    seen = whole[5][0]
    if way == "header":
        rest = client.get(url, headers={"Last-Event-ID": str(seen)})
    else:
        rest = client.get(url, params={"after": seen})
    assert parsed(rest.text) == whole[6:]
    end = client.get(url, headers={"Last-Event-ID": str(whole[-1][0])})
    assert (end.status_code, end.content) == (204, b"")


def test_a_long_history_is_sent_whole(client, bench, done, monkeypatch):
    monkeypatch.setattr(feed, "_N_READ", 4)
    monkeypatch.setattr(feed, "_N_KEPT", 8)
    events = parsed(client.get(f"/v1/studies/{done.id}/events").text)
    assert [event[0] for event in events] == [e.id for e in bench.store.activity.events(done.id)]


def test_an_event_id_from_the_future_ends_like_any_other(client, bench, done):
    assert client.get(f"/v1/studies/{done.id}/events?after=2000000000").status_code == 204


def test_watchers_see_a_study_live_and_share_the_reading(server, bench, monkeypatch):
    monkeypatch.setattr(feed, "HEARTBEAT_SECONDS", 0.1)
    study, reads = bench.study(), []
    read = feed.Feed._read
    monkeypatch.setattr(feed.Feed, "_read", lambda *args: reads.append(1) or read(*args))
    texts, began = dict.fromkeys(range(8), ""), time.monotonic()
    url = f"{server}/v1/studies/{study.id}/events"

    def watch(number):
        with httpx2.stream("GET", url, timeout=30, verify=False) as stream:
            for text in stream.iter_text():
                texts[number] += text

    threads = [threading.Thread(target=watch, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    while not all(": still here" in text for text in texts.values()):
        time.sleep(0.05)
    bench.work()
    for thread in threads:
        thread.join(20)
    expected = [event.id for event in bench.store.activity.events(study.id)]
    for text in texts.values():
        assert [event[0] for event in parsed(text)] == expected
    assert len(reads) <= 2 * (time.monotonic() - began) + 4


def test_watchers_that_leave_are_forgotten(server, bench):
    study = bench.study()
    url = f"{server}/v1/studies/{study.id}/events"
    with httpx2.stream("GET", url, timeout=30) as stream:
        next(stream.iter_text())
    assert httpx2.get(f"{server}/healthz").status_code == 200


@pytest.mark.parametrize("way", ["revoked", "expired", "first key"])
def test_a_stream_ends_with_the_right_to_read_it(server, bench, monkeypatch, way):
    monkeypatch.setattr(feed, "HEARTBEAT_SECONDS", 0.1)
    study, headers = bench.study("local"), {}
    if way != "first key":
        key = bench.key("local", seconds=5 if way == "expired" else None)
        headers["Authorization"] = f"Bearer {key}"
    url = f"{server}/v1/studies/{study.id}/events"
    with httpx2.stream("GET", url, headers=headers, timeout=30) as stream:
        texts = stream.iter_text()
        while ": still here" not in next(texts):
            pass
        if way == "revoked":
            bench.store.keys.revoke(bench.store.keys.all()[0].id)
        elif way == "first key":
            bench.key("anna")
        end = time.monotonic() + 20
        assert all(time.monotonic() < end for _ in texts)
    assert httpx2.get(url, headers=headers).status_code == 401
