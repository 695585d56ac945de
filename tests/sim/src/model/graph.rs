//! Graphs: nodes and edges, cloning, and the addresses that their allocation nodes own.

use super::State;
use super::hash::{Map, map};
use super::slab::Slab;
use crate::abi::copy::Copy3D;
use crate::abi::error::{INVALID_VALUE, NOT_SUPPORTED, OUT_OF_MEMORY, R};
use crate::abi::graph::{KernelParamsV2, MemsetParams, node_type};
use crate::ffi::{HostFn, StreamCallback};
use std::collections::BTreeMap;

/// All graphs.
pub struct Graphs {
    pub graphs: Slab<Graph>,
    pub nodes: Slab<Node>,
    pub execs: Slab<super::launch::Exec>,
    pub objects: Slab<UserObject>,
    /// Address ranges of allocation nodes, by address.
    ranges: Map<Range>,
    /// Destructors that became due; run once the lock is released.
    pub due: Vec<(HostFn, u64)>,
}

/// One graph.
#[derive(Default)]
pub struct Graph {
    /// In the order of their addition.
    pub nodes: Vec<u64>,
    /// Executable graphs made from it that still exist.
    pub execs: u32,
    /// The node that it is the body of, or 0.
    pub parent: u64,
    /// Retained user objects with counts.
    pub objects: BTreeMap<u64, u32>,
}

/// One node.
pub struct Node {
    pub graph: u64,
    pub op: Op,
    pub deps: Vec<u64>,
    /// The node that it was cloned from.
    pub original: u64,
}

/// What a node does.
#[derive(Clone, Copy)]
pub enum Op {
    Empty,
    Kernel(KernelParamsV2),
    Copy(Copy3D),
    Fill(MemsetParams),
    Host(HostFn, u64),
    /// A stream callback that was captured.
    Callback(StreamCallback, u64),
    Child(u64),
    Record(u64),
    Wait(u64),
    Alloc {
        device: u32,
        bytes: u64,
        addr: u64,
    },
    Free(u64),
}

/// A counted user object.
pub struct UserObject {
    pub data: u64,
    pub destroy: HostFn,
    pub refs: u32,
}

/// Addresses of an allocation node.
struct Range {
    device: u32,
    len: u64,
    /// The node, executable graphs, and the live allocation.
    refs: u32,
    dirty: bool,
    /// The graph of the node, and those that have a node that frees it.
    graph: u64,
    freed_in: Vec<u64>,
}

impl Op {
    /// CUgraphNodeType.
    pub fn kind(&self) -> u32 {
        match self {
            Op::Empty => node_type::EMPTY,
            Op::Kernel(_) => node_type::KERNEL,
            Op::Copy(_) => node_type::MEMCPY,
            Op::Fill(_) => node_type::MEMSET,
            Op::Host(..) | Op::Callback(..) => node_type::HOST,
            Op::Child(_) => node_type::GRAPH,
            Op::Record(_) => node_type::EVENT_RECORD,
            Op::Wait(_) => node_type::WAIT_EVENT,
            Op::Alloc { .. } => node_type::MEM_ALLOC,
            Op::Free(_) => node_type::MEM_FREE,
        }
    }

    /// The address that it allocates or frees.
    pub fn memory(&self) -> Option<u64> {
        match *self {
            Op::Alloc { addr, .. } | Op::Free(addr) => Some(addr),
            _ => None,
        }
    }
}

impl Graphs {
    pub const fn new() -> Self {
        Graphs {
            graphs: Slab::new(15),
            nodes: Slab::new(16),
            execs: Slab::new(17),
            objects: Slab::new(18),
            ranges: map(),
            due: Vec::new(),
        }
    }

    /// Whether an address belongs to an allocation node.
    pub fn owns(&self, addr: u64) -> bool {
        self.ranges.contains_key(&addr)
    }

    /// What an allocation node's memory takes, in bytes.
    pub fn range_len(&self, addr: u64) -> u64 {
        self.ranges.get(&addr).map_or(0, |r| r.len)
    }

    /// A node that frees: one per graph, and elsewhere only if the allocation's own graph has none.
    fn add_free(&mut self, addr: u64, graph: u64) -> R {
        let range = self.ranges.get_mut(&addr).ok_or(INVALID_VALUE)?;
        if range.freed_in.contains(&graph) || range.freed_in.contains(&range.graph) {
            return Err(INVALID_VALUE);
        }
        range.freed_in.push(graph);
        Ok(())
    }

    /// One more holder of an address range.
    pub fn hold(&mut self, addr: u64) {
        if let Some(range) = self.ranges.get_mut(&addr) {
            range.refs += 1;
        }
    }
}

impl State {
    /// Adds a node.
    pub fn add_node(&mut self, graph: u64, deps: Vec<u64>, op: Op) -> R<u64> {
        self.graphs.graphs.get(graph).ok_or(INVALID_VALUE)?;
        if deps
            .iter()
            .any(|&d| self.graphs.nodes.get(d).is_none_or(|n| n.graph != graph))
        {
            return Err(INVALID_VALUE);
        }
        if let Op::Free(addr) = op {
            self.graphs.add_free(addr, graph)?;
        }
        let node = self.graphs.nodes.insert(Node {
            graph,
            op,
            deps,
            original: 0,
        });
        if let Some(g) = self.graphs.graphs.get_mut(graph) {
            g.nodes.push(node);
        }
        Ok(node)
    }

    /// Adds an allocation node: its address is fixed here, its memory comes with a launch.
    pub fn add_alloc_node(&mut self, graph: u64, deps: Vec<u64>, dev: u32, bytes: u64) -> R<u64> {
        self.graphs.graphs.get(graph).ok_or(INVALID_VALUE)?;
        let addr = self.reserve_graph_range(graph, dev, bytes)?;
        let added = self.add_node(
            graph,
            deps,
            Op::Alloc {
                device: dev,
                bytes,
                addr,
            },
        );
        if added.is_err() {
            self.drop_range(addr);
        }
        added
    }

    /// Addresses for an allocation node.
    fn reserve_graph_range(&mut self, graph: u64, device: u32, bytes: u64) -> R<u64> {
        if bytes == 0 {
            return Err(INVALID_VALUE);
        }
        let len = bytes
            .checked_next_multiple_of(super::arena::PAGE)
            .ok_or(OUT_OF_MEMORY)?;
        let addr = self.device(device as i32)?.arena.take_pages(len)?;
        self.graphs.ranges.insert(
            addr,
            Range {
                device,
                len,
                refs: 1,
                dirty: false,
                graph,
                freed_in: Vec::new(),
            },
        );
        Ok(addr)
    }

    /// One holder of an address range less; the last one gives the addresses back.
    pub fn drop_range(&mut self, addr: u64) {
        let Some(range) = self.graphs.ranges.get_mut(&addr) else {
            return;
        };
        range.refs -= 1;
        if range.refs > 0 {
            return;
        }
        let (device, len, dirty) = (range.device, range.len, range.dirty);
        self.graphs.ranges.remove(&addr);
        if let Ok(device) = self.device(device as i32) {
            device.arena.give_pages(addr, len, dirty);
        }
    }

    /// A live allocation of a graph ended.
    pub fn graph_memory_freed(&mut self, addr: u64, dirty: bool) {
        if let Some(range) = self.graphs.ranges.get_mut(&addr) {
            range.dirty |= dirty;
        }
        self.drop_range(addr);
    }

    /// Whether a graph, or a graph in it, allocates or frees.
    pub fn has_memory_nodes(&self, graph: u64) -> bool {
        self.graphs.graphs.get(graph).is_some_and(|g| {
            g.nodes
                .iter()
                .filter_map(|&n| self.graphs.nodes.get(n))
                .any(|n| match n.op {
                    Op::Child(child) => self.has_memory_nodes(child),
                    op => op.memory().is_some(),
                })
        })
    }

    /// cuGraphClone, and what a child node keeps: a copy with fresh nodes.
    pub fn clone_graph(&mut self, graph: u64) -> R<u64> {
        let nodes = self
            .graphs
            .graphs
            .get(graph)
            .ok_or(INVALID_VALUE)?
            .nodes
            .clone();
        if self.has_memory_nodes(graph) {
            return Err(NOT_SUPPORTED);
        }
        let clone = self.graphs.graphs.insert(Graph::default());
        let mut new_of: BTreeMap<u64, u64> = BTreeMap::new();
        for node in nodes {
            let Some(n) = self.graphs.nodes.get(node) else {
                continue;
            };
            let (op, deps) = (n.op, n.deps.clone());
            let op = match op {
                Op::Child(child) => Op::Child(self.clone_graph(child)?),
                op => op,
            };
            // Dependencies may point at nodes added later; they are translated below.
            let made = self.graphs.nodes.insert(Node {
                graph: clone,
                op,
                deps,
                original: node,
            });
            if let (Op::Child(child), Some(_)) = (op, self.graphs.nodes.get(made))
                && let Some(child) = self.graphs.graphs.get_mut(child)
            {
                child.parent = made;
            }
            new_of.insert(node, made);
            if let Some(g) = self.graphs.graphs.get_mut(clone) {
                g.nodes.push(made);
            }
        }
        for &made in new_of.values() {
            if let Some(n) = self.graphs.nodes.get_mut(made) {
                for dep in &mut n.deps {
                    *dep = new_of.get(dep).copied().unwrap_or(*dep);
                }
            }
        }
        Ok(clone)
    }

    /// Adds a child graph node with a copy of the graph, or with the graph itself (moved).
    pub fn add_child(&mut self, graph: u64, deps: Vec<u64>, child: u64, moved: bool) -> R<u64> {
        let source = self.graphs.graphs.get(child).ok_or(INVALID_VALUE)?;
        if child == graph || (moved && source.parent != 0) {
            return Err(INVALID_VALUE);
        }
        let body = if moved {
            child
        } else {
            self.clone_graph(child)?
        };
        let added = self.add_node(graph, deps, Op::Child(body));
        match added {
            Ok(node) => {
                if let Some(g) = self.graphs.graphs.get_mut(body) {
                    g.parent = node;
                }
            }
            Err(_) if !moved => self.destroy_graph(body)?,
            Err(_) => {}
        }
        added
    }

    /// cuGraphDestroy. Executable graphs made from it live on.
    pub fn destroy_graph(&mut self, graph: u64) -> R {
        let g = self.graphs.graphs.remove(graph).ok_or(INVALID_VALUE)?;
        for node in g.nodes {
            self.end_node(node);
        }
        for (object, count) in g.objects {
            // An object retained by a graph exists.
            let _ = self.release_object(object, count);
        }
        Ok(())
    }

    fn end_node(&mut self, node: u64) {
        let Some(node) = self.graphs.nodes.remove(node) else {
            return;
        };
        match node.op {
            Op::Alloc { addr, .. } => self.drop_range(addr),
            Op::Free(addr) => {
                if let Some(range) = self.graphs.ranges.get_mut(&addr) {
                    range.freed_in.retain(|&g| g != node.graph);
                }
            }
            Op::Child(child) => {
                // A child is owned by its node alone.
                let _ = self.destroy_graph(child);
            }
            _ => {}
        }
    }

    /// cuGraphDestroyNode; graphs with memory nodes keep theirs.
    pub fn destroy_node(&mut self, node: u64) -> R {
        let graph = self.graphs.nodes.get(node).ok_or(INVALID_VALUE)?.graph;
        if self.has_memory_nodes(graph) {
            return Err(NOT_SUPPORTED);
        }
        if let Some(g) = self.graphs.graphs.get_mut(graph) {
            g.nodes.retain(|&n| n != node);
        }
        self.end_node(node);
        for (_, n) in self.graphs.nodes.iter_mut() {
            n.deps.retain(|&d| d != node);
        }
        Ok(())
    }

    /// Adds or removes edges.
    pub fn edit_edges(&mut self, graph: u64, from: &[u64], to: &[u64], add: bool) -> R {
        self.graphs.graphs.get(graph).ok_or(INVALID_VALUE)?;
        if !add && self.has_memory_nodes(graph) {
            return Err(NOT_SUPPORTED);
        }
        for (&from, &to) in from.iter().zip(to) {
            let known = |n: u64| self.graphs.nodes.get(n).is_some_and(|n| n.graph == graph);
            if !known(from) || !known(to) || from == to {
                return Err(INVALID_VALUE);
            }
            let node = self.graphs.nodes.get_mut(to).ok_or(INVALID_VALUE)?;
            let there = node.deps.contains(&from);
            match (add, there) {
                (true, false) => node.deps.push(from),
                (false, true) => node.deps.retain(|&d| d != from),
                _ => return Err(INVALID_VALUE),
            }
        }
        Ok(())
    }

    /// Gives user object references back; the last one makes the destructor due.
    pub fn release_object(&mut self, object: u64, count: u32) -> R {
        let o = self.graphs.objects.get_mut(object).ok_or(INVALID_VALUE)?;
        if count == 0 || count > o.refs {
            return Err(INVALID_VALUE);
        }
        o.refs -= count;
        if o.refs == 0
            && let Some(o) = self.graphs.objects.remove(object)
        {
            self.graphs.due.push((o.destroy, o.data));
        }
        Ok(())
    }
}
