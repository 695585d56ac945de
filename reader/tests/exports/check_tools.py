"""Opens exports with the tools they are for, and compares their answers with `leaks` and `peak`. What is not installed is skipped
aloud. Usage: check_tools.py FOLDER, which tools.rs has filled."""
import json
import os
import re
import shutil
import subprocess
import sys

folder = sys.argv[1]
path = lambda name: os.path.join(folder, name)


def skip(what, why):
    print("SKIPPED %s: %s" % (what, why), file=sys.stderr)


with open(path("leaks.json")) as file:
    total = json.load(file)["total"]
leaked = {"gpu": (total["gpu"]["bytes"], total["gpu"]["count"]), "host": (total["host"]["bytes"], total["host"]["count"])}
with open(path("peak.json")) as file:
    peaks = {(peak["device"], peak["layer"]): peak["bytes"] for peak in json.load(file)["peaks"]}


def check_pprof():
    go = shutil.which("go")
    if not go:
        return skip("pprof", "there is no go")
    run = lambda *args: subprocess.run([go, "tool", "pprof", *args, path("a.pb.gz")], check=True, stdout=subprocess.PIPE,
                                       env=dict(os.environ, HOME=folder, PPROF_TMPDIR=folder)).stdout.decode()
    raw = run("-raw")
    assert "alloc_objects/count alloc_space/bytes inuse_objects/count inuse_space/bytes[dflt]" in raw, raw[:2000]
    samples = re.findall(r"^ *(\d+) +(\d+) +(\d+) +(\d+): [\d ]*\n +.*?device:\[(.*?)\]", raw, re.M)
    sums = {"gpu": [0, 0], "host": [0, 0]}
    for _, _, count, size, device in samples:
        of = sums["host" if device == "host" else "gpu"]
        of[0] += int(size)
        of[1] += int(count)
    assert {space: tuple(of) for space, of in sums.items()} == leaked, (sums, leaked)
    for kind in ("-top", "-tree", "-traces", "-tags"):
        run(kind)


def check_perfetto():
    try:
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as protos
    except ImportError as error:
        return skip("Perfetto", error)
    trace = protos.Trace()
    with open(path("a.pftrace"), "rb") as file:
        trace.ParseFromString(file.read())

    def known(message):
        for field, value in message.ListFields():
            if field.message_type:
                for part in (value if field.is_repeated else [value]):
                    known(part)
        try:
            from google.protobuf.unknown_fields import UnknownFieldSet
            assert len(UnknownFieldSet(message)) == 0, message
        except ImportError:
            pass

    units, last, slices = {}, {}, [0, 0]
    stacks, names = set(), set()
    for packet in trace.packet:
        known(packet)
        stacks |= {stack.iid for stack in packet.interned_data.callstacks}
        names |= {name.iid for name in packet.interned_data.event_names}
        if packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            units[track.uuid] = (track.name, track.counter.unit if track.HasField("counter") else None)
        if packet.HasField("track_event"):
            event = packet.track_event
            if event.type == protos.TrackEvent.TYPE_COUNTER:
                assert units[event.track_uuid][1] == protos.CounterDescriptor.UNIT_SIZE_BYTES
                last.setdefault(units[event.track_uuid][0], []).append(event.counter_value)
            elif event.type == protos.TrackEvent.TYPE_SLICE_BEGIN:
                slices[0] += 1
                is_range = units[event.track_uuid][0].startswith("NVTX ranges")
                assert is_range or event.callstack_iid in stacks
                assert event.name_iid in names
            elif event.type == protos.TrackEvent.TYPE_SLICE_END:
                slices[1] += 1
    assert slices[0] >= slices[1] and slices[0] > 0, slices
    most = {}
    for name, values in last.items():
        found = re.match(r"GPU (\d+): live bytes, (\w+) layer", name)
        if found or name == "host memory: live bytes":
            most[(int(found[1]), found[2]) if found else (None, "host")] = max(values)
    assert most == peaks, (most, peaks)


def check_speedscope():
    schema = os.environ.get("VRAMTRACE_TEST_SPEEDSCOPE_SCHEMA")
    if not schema:
        return skip("speedscope", "its schema is not here")
    try:
        import jsonschema
    except ImportError as error:
        return skip("speedscope", error)
    with open(schema) as schema, open(path("a.speedscope.json")) as file:
        jsonschema.validate(json.load(file), json.load(schema))


def check_parquet():
    try:
        import duckdb
    except ImportError as error:
        return skip("Parquet in DuckDB", error)
    os.chdir(path("a.parquet"))
    leak = """SELECT layer = 'host', sum(bytes)::BIGINT, count(*) FROM 'allocations.parquet'
              WHERE role = 'memory' AND state IN ('live', 'context', 'reset') GROUP BY 1"""
    found = {"host" if host else "gpu": (size, count) for host, size, count in duckdb.sql(leak).fetchall()}
    assert found == {space: of for space, of in leaked.items() if of != (0, 0)}, (found, leaked)
    # The queries of the documentation, as they stand there; the third gives the peaks.
    with open(sys.argv[2]) as file:
        queries = re.search(r"```sql\n(.*?)```", file.read(), re.S)[1]
    answers = [duckdb.sql(query).fetchall() for query in queries.split(";") if query.strip()]
    assert len(answers) == 5
    assert sum(size for _, size, _ in answers[0]) == leaked["gpu"][0] + leaked["host"][0]
    found = {(device, layer): size for device, layer, size in answers[2]}
    assert found == peaks, (found, peaks)
    check_growth(answers[3])
    types = dict(duckdb.sql("SELECT column_name, column_type FROM (DESCRIBE FROM 'allocations.parquet')").fetchall())
    assert types["allocated"] == "TIMESTAMP WITH TIME ZONE" and types["bytes"] == "BIGINT" and types["site"] == "VARCHAR", types
    stacks = duckdb.sql("SELECT count(*) FROM 'allocations.parquet' a ANTI JOIN 'stacks.parquet' s USING (process, stack)")
    assert stacks.fetchall() == [(0,)]
    try:
        import pyarrow.parquet
    except ImportError as error:
        return skip("Parquet in pyarrow", error)
    for name in os.listdir("."):
        pyarrow.parquet.read_table(name)


def check_growth(found):
    """Every stack that `growth` is sure of is among those that the query finds, and is the fastest where it is alone."""
    with open(path("growth.json")) as file:
        growing = [group for group in json.load(file)["groups"] if group["shape"] == "growing"]
    found = {site: slope for site, slope, _, _ in found}
    for group in growing:
        frame = group["stack"][0]
        module = os.path.basename(frame["module"])
        site = "%s+%#x" % (module, frame["offset"])
        assert site in found, (site, found)
        assert abs(found[site] / group["slope"] - 1) < 0.1, (site, found[site], group["slope"])
    if os.environ.get("VRAMTRACE_TEST_GROWS"):
        assert len(growing) == len(found) == 1, (growing, found)


def check_svg():
    import xml.etree.ElementTree
    xml.etree.ElementTree.parse(path("a.svg"))


for check in (check_pprof, check_perfetto, check_speedscope, check_parquet, check_svg):
    check()
