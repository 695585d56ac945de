/* Arrays of all shapes, and mipmapped ones; bytes by descriptor. */
#include "../support/cu.h"

static size_t bytes_of(CUDA_ARRAY3D_DESCRIPTOR d, unsigned levels) {
  size_t element = d.NumChannels * (d.Format == FORMAT_U8 ? 1 : d.Format == FORMAT_HALF ? 2 : 4), sum = 0;
  for (unsigned level = 0; level < levels; level++) {
    size_t width = d.Width >> level, height = d.Height >> level, depth = d.Flags & (ARRAY_LAYERED | ARRAY_CUBEMAP) ? d.Depth : d.Depth >> level;
    sum += (width ? width : 1) * (height ? height : 1) * (depth ? depth : 1) * element;
  }
  return sum;
}

int main(void) {
  static const CUDA_ARRAY3D_DESCRIPTOR shapes[] = {
      {256, 0, 0, FORMAT_FLOAT, 1, 0},
      {64, 64, 0, FORMAT_FLOAT, 1, 0},
      {100, 37, 0, FORMAT_U8, 4, ARRAY_SURFACE},
      {32, 16, 8, FORMAT_HALF, 2, 0},
      {64, 64, 5, FORMAT_U32, 2, ARRAY_LAYERED},
      {128, 0, 7, FORMAT_U8, 1, ARRAY_LAYERED},
      {32, 32, 6, FORMAT_FLOAT, 4, ARRAY_CUBEMAP},
      {16, 16, 12, FORMAT_HALF, 1, ARRAY_CUBEMAP | ARRAY_LAYERED},
  };
  cu_open();
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
    for (int twice = 0; twice < 2; twice++) {
      CUarray array;
      CUmipmappedArray mipmap;
      CUDA_ARRAY3D_DESCRIPTOR shape = shapes[i];
      unsigned levels = 1 + i % 3;
      if (!shape.Depth) {
        CUDA_ARRAY_DESCRIPTOR flat;
        flat.Width = shape.Width, flat.Height = shape.Height, flat.Format = shape.Format, flat.NumChannels = shape.NumChannels;
        CU(cuArrayCreate_v2(&array, &flat));
      } else CU(cuArray3DCreate_v2(&array, &shape));
      if (twice) CU(cuArrayDestroy(array));
      else truth_alloc(ARRAY, bytes_of(shape, 1));
      CU(cuMipmappedArrayCreate(&mipmap, &shape, levels));
      CU(cuMipmappedArrayGetLevel(&array, mipmap, levels - 1));
      if (twice) CU(cuMipmappedArrayDestroy(mipmap));
      else truth_alloc(ARRAY, bytes_of(shape, levels));
    }
  return truth_finish(cu_reset);
}
