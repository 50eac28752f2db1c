foreach(file segment text data host_device gemm matmul kernels)
  dj_test(gpu/test_${file}.c LABEL unit LIBS dj_gpu)
endforeach()
