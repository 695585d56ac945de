// Graph memory through the runtime: built by hand, captured, relaunched, freed in all ways.
#include "../support/runtime.h"

__global__ void fill(int *at, int value, int n) {
  for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) at[i] = value;
}

static cudaStream_t stream;

static void launch(cudaGraphExec_t executable) {
  RT(cudaGraphLaunch(executable, stream));
  RT(cudaStreamSynchronize(stream));
}

static void *add_alloc(cudaGraph_t graph, cudaGraphNode_t *node, size_t bytes) {
  cudaMemAllocNodeParams params;
  memset(&params, 0, sizeof params);
  params.poolProps.allocType = cudaMemAllocationTypePinned;
  params.poolProps.location.type = cudaMemLocationTypeDevice;
  params.bytesize = bytes;
  RT(cudaGraphAddMemAllocNode(node, graph, NULL, 0, &params));
  return params.dptr;
}

int main() {
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  cudaGraphNode_t node, last;
  void *at;
  int *scratch, n = 1 << 18, value = 41, word = 0;
  int *result = (int *)rt_device(n * sizeof(int));
  RT(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));

  RT(cudaGraphCreate(&graph, 0)); // freed outside, launched again
  at = add_alloc(graph, &node, MIB);
  RT(cudaGraphInstantiate(&executable, graph, 0));
  launch(executable);
  RT(cudaFreeAsync(at, stream));
  launch(executable);
  RT(cudaFree(at));
  RT(cudaGraphExecDestroy(executable));

  RT(cudaGraphCreate(&graph, 0)); // frees its own
  at = add_alloc(graph, &node, 2 * MIB);
  RT(cudaGraphAddMemFreeNode(&last, graph, &node, 1, at));
  RT(cudaGraphInstantiate(&executable, graph, 0));
  for (int i = 0; i < 3; i++) launch(executable);

  RT(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal)); // captured; freed by its next launch
  RT(cudaMallocAsync((void **)&scratch, n * sizeof(int), stream));
  void *arguments[] = {&scratch, &value, &n};
  RT(cudaLaunchKernel((const void *)fill, dim3(1), dim3(256), arguments, 0, stream));
  RT(cudaMemcpyAsync(result, scratch, n * sizeof(int), cudaMemcpyDeviceToDevice, stream));
  RT(cudaFreeAsync(scratch, stream));
  RT(cudaMallocAsync(&at, 5 * MIB, stream));
  RT(cudaStreamEndCapture(stream, &graph));
  RT(cudaGraphInstantiate(&executable, graph, cudaGraphInstantiateFlagAutoFreeOnLaunch));
  for (int i = 0; i < 4; i++) launch(executable);
  truth_alloc(GRAPH, 5 * MIB);
  RT(cudaMemcpy(&word, result + n - 1, sizeof word, cudaMemcpyDeviceToHost));
  printf("the graph wrote %d\n", word);

  rt_async(999, stream);
  RT(cudaStreamSynchronize(stream));
  RT(cudaDeviceGraphMemTrim(0));
  return truth_finish(rt_reset);
}
