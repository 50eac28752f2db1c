/* convolution.h - parameters of the kernels of convolution and pooling (convolution.cu). */
#ifndef DJ_GPU_CUDA_KERNELS_CONVOLUTION_H
#define DJ_GPU_CUDA_KERNELS_CONVOLUTION_H

#include "gpu/cuda/kernels/params.h"

#define DJ_CONVOLUTION_THREADS 256
#define DJ_CONVOLUTION_SPATIAL 3 /* fewer dimensions are ones in front */

/* Of a picture [batch, channel, spatial...]; in elements. */
typedef struct dj_picture {
    int64_t sizes[DJ_CONVOLUTION_SPATIAL];
    int64_t batch_stride, channel_stride, strides[DJ_CONVOLUTION_SPATIAL];
} dj_picture_t;

typedef struct dj_sliding {
    int64_t kernel[DJ_CONVOLUTION_SPATIAL], stride[DJ_CONVOLUTION_SPATIAL], padding[DJ_CONVOLUTION_SPATIAL],
        dilation[DJ_CONVOLUTION_SPATIAL];
} dj_sliding_t;

/* The weight is [output channel, input channel of the group, kernel...], where transposed [input channel, output
 * channel of the group, kernel...]: a picture whose batch is the first of them. */
typedef struct dj_convolution {
    dj_cuda_head_t head;
    dj_cuda_ref_t input, weight, bias, output;
    dj_picture_t in, kernel, out;
    dj_sliding_t window;
    int64_t count, channels, group_inputs, group_outputs, bias_stride; /* elements and channels of the output */
    uint32_t transposed;
} dj_convolution_t;

/* output[n, c, ...] += bias[c] */
typedef struct dj_convolution_bias {
    dj_cuda_head_t head;
    dj_cuda_ref_t bias, output;
    dj_cuda_loop_t loop; /* bias, output */
} dj_convolution_bias_t;

/* Two spatial dimensions, the last two. */
typedef struct dj_pool {
    dj_cuda_head_t head;
    dj_cuda_ref_t input, output, indices; /* indices: of max pooling, laid out as `places` */
    dj_picture_t in, out, places;
    dj_sliding_t window;
    int64_t count, channels;
    int64_t divisor;         /* 0: what the window covers */
    uint32_t with_padding;   /* ... counting padding */
    uint32_t channels_inner; /* the output's elements lie along its channels */
} dj_pool_t;

#endif
