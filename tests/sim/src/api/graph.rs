//! Graphs as structures: creation, clones, nodes and edges, user objects.

use crate::abi::error::{INVALID_VALUE, R};
use crate::abi::graph::EdgeData;
use crate::ffi::{HostFn, Items, Out, Text};
use crate::gate::{Call, INIT, driver};
use crate::model::graph::{Graph, Node, UserObject};

/// Writes handles the way graph queries do: with no array, only the count is answered; with a larger
/// array than needed, the rest is set to NULL and the count lowered.
fn list(handles: &[u64], out: Out<u64>, count: Out<usize>) -> R {
    if out.is_null() {
        return count.set(handles.len());
    }
    let room = count.get()?;
    let mut padded = handles.to_vec();
    padded.resize(room.max(handles.len()), 0);
    out.fill(&padded, room)?;
    count.set(room.min(handles.len()))
}

fn node(c: &Call, handle: u64) -> R<&Node> {
    c.graphs.nodes.get(handle).ok_or(INVALID_VALUE)
}

fn graph(c: &Call, handle: u64) -> R<&Graph> {
    c.graphs.graphs.get(handle).ok_or(INVALID_VALUE)
}

fn edges(c: &Call, handle: u64) -> R<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    for &to in &graph(c, handle)?.nodes {
        found.extend(node(c, to)?.deps.iter().map(|&from| (from, to)));
    }
    Ok(found)
}

fn list_edges(
    c: &Call,
    handle: u64,
    from: Out<u64>,
    to: Out<u64>,
    data: Out<EdgeData>,
    count: Out<usize>,
) -> R {
    let edges = edges(c, handle)?;
    if from.is_null() || to.is_null() {
        return if from.is_null() && to.is_null() {
            count.set(edges.len())
        } else {
            Err(INVALID_VALUE)
        };
    }
    let room = count.get()?;
    from.fill(&edges.iter().map(|e| e.0).collect::<Vec<_>>(), room)?;
    to.fill(&edges.iter().map(|e| e.1).collect::<Vec<_>>(), room)?;
    if !data.is_null() {
        data.fill(&vec![EdgeData::default(); edges.len()], room)?;
    }
    count.set(room.min(edges.len()))
}

fn dependents(c: &Call, handle: u64) -> R<Vec<u64>> {
    let nodes = &graph(c, node(c, handle)?.graph)?.nodes;
    Ok(nodes
        .iter()
        .copied()
        .filter(|&n| {
            c.graphs
                .nodes
                .get(n)
                .is_some_and(|n| n.deps.contains(&handle))
        })
        .collect())
}

fn edit(c: &mut Call, g: u64, from: Items<u64>, to: Items<u64>, n: usize, add: bool) -> R {
    c.edit_edges(g, &from.read(n)?, &to.read(n)?, add)
}

driver! {
    /// Empty.
    [INIT] fn cuGraphCreate(out: Out<u64>, flags: u32) |c| {
        out.check()?;
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        let graph = c.graphs.graphs.insert(Graph::default());
        out.set(graph)
    }

    /// Not a graph that is a child of another.
    [INIT] fn cuGraphDestroy(g: u64) |c| {
        if graph(c, g)?.parent != 0 {
            return Err(INVALID_VALUE);
        }
        c.destroy_graph(g)
    }

    /// Not with memory nodes, whose addresses exist once.
    [INIT] fn cuGraphClone(out: Out<u64>, original: u64) |c| {
        out.check()?;
        let clone = c.clone_graph(original)?;
        out.set(clone)
    }

    /// The clone's node that came from a node of the original.
    [INIT] fn cuGraphNodeFindInClone(out: Out<u64>, original: u64, clone: u64) |c| {
        let nodes = &graph(c, clone)?.nodes;
        let found = nodes
            .iter()
            .copied()
            .find(|&n| c.graphs.nodes.get(n).is_some_and(|n| n.original == original));
        out.set(found.ok_or(INVALID_VALUE)?)
    }

    /// CUgraphNodeType.
    [INIT] fn cuGraphNodeGetType(handle: u64, out: Out<u32>) |c| { out.set(node(c, handle)?.op.kind()) }

    /// All nodes.
    [INIT] fn cuGraphGetNodes(g: u64, out: Out<u64>, count: Out<usize>) |c| {
        list(&graph(c, g)?.nodes, out, count)
    }

    /// Nodes without dependencies.
    [INIT] fn cuGraphGetRootNodes(g: u64, out: Out<u64>, count: Out<usize>) |c| {
        let roots: Vec<u64> = graph(c, g)?
            .nodes
            .iter()
            .copied()
            .filter(|&n| c.graphs.nodes.get(n).is_some_and(|n| n.deps.is_empty()))
            .collect();
        list(&roots, out, count)
    }

    /// Before 12.3.
    [INIT] fn cuGraphGetEdges(g: u64, from: Out<u64>, to: Out<u64>, count: Out<usize>) |c| {
        list_edges(c, g, from, to, Out::none(), count)
    }

    /// With edge data.
    [INIT] fn cuGraphGetEdges_v2(
        g: u64, from: Out<u64>, to: Out<u64>, data: Out<EdgeData>, count: Out<usize>,
    ) |c| {
        list_edges(c, g, from, to, data, count)
    }

    /// Before 12.3.
    [INIT] fn cuGraphNodeGetDependencies(handle: u64, out: Out<u64>, count: Out<usize>) |c| {
        list(&node(c, handle)?.deps, out, count)
    }

    /// With edge data.
    [INIT] fn cuGraphNodeGetDependencies_v2(
        handle: u64, out: Out<u64>, data: Out<EdgeData>, count: Out<usize>,
    ) |c| {
        let deps = &node(c, handle)?.deps;
        if !data.is_null() {
            data.fill(&vec![EdgeData::default(); deps.len()], count.get()?)?;
        }
        list(deps, out, count)
    }

    /// Before 12.3.
    [INIT] fn cuGraphNodeGetDependentNodes(handle: u64, out: Out<u64>, count: Out<usize>) |c| {
        list(&dependents(c, handle)?, out, count)
    }

    /// With edge data.
    [INIT] fn cuGraphNodeGetDependentNodes_v2(
        handle: u64, out: Out<u64>, data: Out<EdgeData>, count: Out<usize>,
    ) |c| {
        let nodes = dependents(c, handle)?;
        if !data.is_null() {
            data.fill(&vec![EdgeData::default(); nodes.len()], count.get()?)?;
        }
        list(&nodes, out, count)
    }

    /// Before 12.3.
    [INIT] fn cuGraphAddDependencies(g: u64, from: Items<u64>, to: Items<u64>, n: usize) |c| {
        edit(c, g, from, to, n, true)
    }

    /// With edge data.
    [INIT] fn cuGraphAddDependencies_v2(
        g: u64, from: Items<u64>, to: Items<u64>, data: Items<EdgeData>, n: usize,
    ) |c| {
        let _ = data;
        edit(c, g, from, to, n, true)
    }

    /// Before 12.3.
    [INIT] fn cuGraphRemoveDependencies(g: u64, from: Items<u64>, to: Items<u64>, n: usize) |c| {
        edit(c, g, from, to, n, false)
    }

    /// With edge data.
    [INIT] fn cuGraphRemoveDependencies_v2(
        g: u64, from: Items<u64>, to: Items<u64>, data: Items<EdgeData>, n: usize,
    ) |c| {
        let _ = data;
        edit(c, g, from, to, n, false)
    }

    /// Not in graphs with memory nodes.
    [INIT] fn cuGraphDestroyNode(handle: u64) |c| { c.destroy_node(handle) }

    /// One line per node and edge.
    [INIT] fn cuGraphDebugDotPrint(g: u64, path: Text, flags: u32) |c| {
        let _ = flags;
        let mut dot = String::from("digraph dot {\n");
        for &n in &graph(c, g)?.nodes {
            dot += &format!("  \"{n:#x}\" [label=\"type {}\"];\n", node(c, n)?.op.kind());
        }
        for (from, to) in edges(c, g)? {
            dot += &format!("  \"{from:#x}\" -> \"{to:#x}\";\n");
        }
        dot += "}\n";
        std::fs::write(path.get()?, dot).map_err(|_| crate::abi::error::OPERATING_SYSTEM)
    }

    /// A counted object with a destructor.
    [INIT] fn cuUserObjectCreate(
        out: Out<u64>, data: u64, destroy: HostFn, count: u32, flags: u32,
    ) |c| {
        out.check()?;
        if destroy.is_none() || count == 0 || flags != 1 {
            return Err(INVALID_VALUE);
        }
        let object = c.graphs.objects.insert(UserObject { data, destroy, refs: count });
        out.set(object)
    }

    /// More references.
    [INIT] fn cuUserObjectRetain(object: u64, count: u32) |c| {
        let o = c.graphs.objects.get_mut(object).ok_or(INVALID_VALUE)?;
        o.refs = o.refs.checked_add(count).filter(|_| count > 0).ok_or(INVALID_VALUE)?;
        Ok(())
    }

    /// Fewer; the last one runs the destructor.
    [INIT] fn cuUserObjectRelease(object: u64, count: u32) |c| { c.release_object(object, count) }

    /// The graph holds references; flag 1 moves the caller's.
    [INIT] fn cuGraphRetainUserObject(g: u64, object: u64, count: u32, flags: u32) |c| {
        graph(c, g)?;
        let o = c.graphs.objects.get_mut(object).ok_or(INVALID_VALUE)?;
        if count == 0 || flags > 1 {
            return Err(INVALID_VALUE);
        }
        if flags == 0 {
            o.refs = o.refs.checked_add(count).ok_or(INVALID_VALUE)?;
        }
        if let Some(g) = c.graphs.graphs.get_mut(g) {
            *g.objects.entry(object).or_insert(0) += count;
        }
        Ok(())
    }

    /// The graph lets go of references.
    [INIT] fn cuGraphReleaseUserObject(g: u64, object: u64, count: u32) |c| {
        let g = c.graphs.graphs.get_mut(g).ok_or(INVALID_VALUE)?;
        let held = g.objects.get_mut(&object).ok_or(INVALID_VALUE)?;
        *held = held.checked_sub(count).ok_or(INVALID_VALUE)?;
        if *held == 0 {
            g.objects.remove(&object);
        }
        c.release_object(object, count)
    }
}
