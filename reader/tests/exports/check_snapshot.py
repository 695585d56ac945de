"""Reads a memory snapshot as PyTorch's viewers do, and says what is in it as JSON: the sums of each GPU's live blocks and of its
segments, and the largest sum of blocks on the way. Fails where a viewer would. Usage: check_snapshot.py FILE [_memory_viz.py]"""
import importlib.util
import json
import pickle
import pickletools
import sys

with open(sys.argv[1], "rb") as file:
    data = file.read()

# All that the page's own unpickler knows.
KNOWN = """APPEND APPENDS BINFLOAT BINGET BININT BININT1 BININT2 BINPUT BINUNICODE DICT EMPTY_DICT EMPTY_LIST EMPTY_TUPLE FRAME LIST LONG1
LONG_BINGET LONG_BINPUT MARK MEMOIZE NEWFALSE NEWTRUE NONE PROTO SETITEM SETITEMS SHORT_BINUNICODE STOP TUPLE TUPLE1 TUPLE2
TUPLE3""".split()
run = 0
for code, argument, _ in pickletools.genops(data):
    assert code.name in KNOWN, code.name
    assert code.name != "LONG1" or -(2**63) <= argument < 2**63

snapshot = pickle.loads(data)
assert set(snapshot) == {"segments", "device_traces", "allocator_settings"}


def check_frames(frames):
    for frame in frames:
        assert set(frame) == {"name", "filename", "line"} and isinstance(frame["line"], int)


def find(segments, address):
    return any(start <= address < start + size for start, size in segments)


answer = []
for device, trace in enumerate(snapshot["device_traces"]):
    segments, blocks, inactive = {}, {}, 0
    for segment in snapshot["segments"]:
        if segment["device"] != device:
            continue
        assert len(segment["segment_pool_id"]) == 2
        assert segment["address"] + segment["total_size"] < 2**53
        check_frames(segment["frames"])
        at = segment["address"]
        for block in segment["blocks"]:
            assert block["address"] == at, "blocks do not tile their segment"
            at += block["size"]
            check_frames(block["frames"])
            if block["state"] == "active_allocated":
                blocks[block["address"]] = block["size"]
            else:
                assert block["state"] == "inactive"
                inactive += block["size"]
        assert at == segment["address"] + segment["total_size"], "blocks do not fill their segment"
        assert segment["allocated_size"] + sum(b["size"] for b in segment["blocks"] if b["state"] == "inactive") == segment["total_size"]
        segments[segment["address"]] = segment["total_size"]
    end = {"blocks": sum(blocks.values()), "count": len(blocks), "segments": sum(segments.values()), "steps": len(trace)}
    peak = end["blocks"]
    # From the end back to the beginning, as the view of the allocator's state does it.
    mapped = dict(segments)
    last = None
    for step in reversed(trace):
        check_frames(step["frames"])
        action, address, size = step["action"], step.get("addr"), step["size"]
        assert last is None or step["time_us"] <= last
        last = step["time_us"]
        if action == "free_completed":
            assert address not in blocks, "freed where a block is"
            blocks[address] = size
        elif action == "free_requested":
            assert address in blocks
        elif action == "alloc":
            assert blocks.pop(address) == size, "an allocation of another block"
        elif action in ("segment_free", "segment_unmap"):
            mapped[address] = size
        elif action in ("segment_alloc", "segment_map"):
            joined = [at for at in mapped if at <= address < at + mapped[at]]
            assert len(joined) == 1, "a segment that is not there"
            at, old = joined[0], mapped.pop(joined[0])
            assert address + size <= at + old
            assert action == "segment_map" or (at, old) == (address, size)
            if at < address:
                mapped[at] = address - at
            if address + size < at + old:
                mapped[address + size] = at + old - address - size
        else:
            assert action == "oom" and "device_free" in step
        peak = max(peak, sum(blocks.values()))
        for block in blocks if action.startswith("segment") else [address] if action == "free_completed" else []:
            assert find(mapped.items(), block), "a block in no segment"
    end["peak"] = peak
    answer.append(end)

if len(sys.argv) > 2:
    spec = importlib.util.spec_from_file_location("memory_viz", sys.argv[2])
    viz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(viz)
    plain = lambda lines, *_: lines
    assert "total_allocated" in viz.segsum(snapshot)
    viz.trace(snapshot)
    by_memory = viz.memory(snapshot, format_flamegraph=plain)
    viz.segments(snapshot, format_flamegraph=plain)
    active = [int(line.rsplit(" ", 1)[1]) for line in by_memory.splitlines() if ";active_allocated;" in line]
    assert sum(active) == sum(end["blocks"] for end in answer)
    viz.trace_plot(snapshot)
    viz.segment_plot(snapshot)

json.dump(answer, sys.stdout)
