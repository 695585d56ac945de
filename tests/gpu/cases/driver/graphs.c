/* Memory of graphs: live per launch, freed by the graph, by another one, outside, by the next launch. */
#include "../support/cu.h"

static CUstream stream;

static CUdeviceptr add_alloc(CUgraph graph, CUgraphNode *node, size_t bytes) {
  CUDA_MEM_ALLOC_NODE_PARAMS params;
  memset(&params, 0, sizeof params);
  params.poolProps.allocType = 1;
  params.poolProps.location = cu_on_device().location;
  params.bytesize = bytes;
  CU(cuGraphAddMemAllocNode(node, graph, NULL, 0, &params));
  return params.dptr;
}

static CUgraphExec instantiate(CUgraph graph, unsigned long long flags) {
  CUgraphExec executable;
  CU(cuGraphInstantiateWithFlags(&executable, graph, flags));
  return executable;
}

static void launch(CUgraphExec executable) {
  CU(cuGraphLaunch(executable, stream));
  CU(cuStreamSynchronize(stream));
}

int main(void) {
  CUgraph graph, freeing;
  CUgraphNode node, last;
  CUgraphExec executable, frees;
  CUdeviceptr at;
  cu_open();
  CU(cuStreamCreate(&stream, 1));

  CU(cuGraphCreate(&graph, 0)); /* freed outside, in both ways, and launched again */
  at = add_alloc(graph, &node, MIB);
  executable = instantiate(graph, 0);
  launch(executable);
  printf("launched while its memory is live: %s\n", cuGraphLaunch(executable, stream) ? "refused" : "accepted");
  CU(cuMemFreeAsync(at, stream));
  CU(cuStreamSynchronize(stream));
  launch(executable);
  CU(cuMemFree_v2(at));
  CU(cuGraphExecDestroy(executable));
  CU(cuGraphDestroy(graph));

  CU(cuGraphCreate(&graph, 0)); /* frees its own */
  at = add_alloc(graph, &node, 2 * MIB);
  CU(cuGraphAddMemFreeNode(&last, graph, &node, 1, at));
  executable = instantiate(graph, 0);
  for (int i = 0; i < 3; i++) launch(executable);

  CU(cuGraphCreate(&graph, 0)); /* freed by its next launch */
  add_alloc(graph, &node, 3 * MIB);
  executable = instantiate(graph, 1 /* AUTO_FREE_ON_LAUNCH */);
  for (int i = 0; i < 3; i++) launch(executable);
  truth_alloc(GRAPH, 3 * MIB);

  CU(cuGraphCreate(&graph, 0)); /* freed by another graph */
  CU(cuGraphCreate(&freeing, 0));
  at = add_alloc(graph, &node, 4 * MIB);
  CU(cuGraphAddMemFreeNode(&last, freeing, NULL, 0, at));
  executable = instantiate(graph, 0);
  frees = instantiate(freeing, 0);
  for (int i = 0; i < 2; i++) {
    launch(executable);
    launch(frees);
  }

  CU(cuStreamBeginCapture_v2(stream, CAPTURE_GLOBAL)); /* captured: one freed inside, one not */
  CU(cuMemAllocAsync(&at, 5 * MIB, stream));
  CU(cuMemsetD32Async(at, 7, MIB, stream));
  CU(cuMemFreeAsync(at, stream));
  CU(cuMemAllocAsync(&at, 6 * MIB, stream));
  CU(cuMemsetD32Async(at, 8, MIB, stream));
  CU(cuStreamEndCapture(stream, &graph));
  executable = instantiate(graph, 0);
  launch(executable);
  truth_alloc(GRAPH, 6 * MIB);

  new_async(12345, stream); /* plain memory beside it */
  CU(cuStreamSynchronize(stream));
  CU(cuDeviceGraphMemTrim(cu_device));
  return truth_finish(cu_reset);
}
