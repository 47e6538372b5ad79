/* A two-dimensional convolution with all its gradients, as plain as C allows, and a driver that holds it to the test
 * vectors of `refconv vectors`.
 *
 *     cc -std=c99 -O2 conv.c -lm -o conv
 *     ./conv DIR LIST
 *
 * DIR is what `refconv vectors --out DIR` wrote. LIST spares this file a JSON parser: a text with one line of numbers
 * for each problem, which ten lines of any scripting language make from DIR/manifest.json (docs/test-vectors.md has
 * them in Python):
 *
 *     id  exact|bounded  N C H W  K KH KW  stride_h stride_w  top bottom left right  dilation_h dilation_w  groups
 *     has_bias has_gradients
 *
 * Exit code 0: all results are right; 1: some are wrong, each is named; 2: the vectors cannot be read.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- The convolution ---------------------------------------------------------------------------------------------- */

typedef struct {
    int n, c, h, w;                     /* x is (n, c, h, w) */
    int k, kh, kw;                      /* weight is (k, c / groups, kh, kw) */
    int stride_h, stride_w;
    int top, bottom, left, right;       /* padding with zeros */
    int dilation_h, dilation_w;
    int groups;
    int oh, ow;                         /* y is (n, k, oh, ow) */
} Conv;

static int output_size(int n, int before, int after, int kernel, int stride, int dilation)
{
    return (n + before + after - dilation * (kernel - 1) - 1) / stride + 1;
}

static size_t x_at(const Conv *p, int n, int c, int i, int j)
{
    return (((size_t)n * p->c + c) * p->h + i) * p->w + j;
}

static size_t y_at(const Conv *p, int n, int k, int i, int j)
{
    return (((size_t)n * p->k + k) * p->oh + i) * p->ow + j;
}

static size_t w_at(const Conv *p, int k, int c, int u, int v)
{
    return (((size_t)k * (p->c / p->groups) + c) * p->kh + u) * p->kw + v;
}

/* The first input channel that output channel k reads: groups are contiguous blocks of channels. */
static int first_channel(const Conv *p, int k)
{
    int group = k / (p->k / p->groups);
    return group * (p->c / p->groups);
}

/* y[n,k,i,j] = bias[k] + sum of weight[k,c,u,v] * x[n,c,i*stride + u*dilation - top, ...] */
static void conv_forward(const Conv *p, const float *x, const float *weight, const float *bias, float *y)
{
    for (int n = 0; n < p->n; n++)
    for (int k = 0; k < p->k; k++)
    for (int i = 0; i < p->oh; i++)
    for (int j = 0; j < p->ow; j++) {
        float sum = 0;
        for (int c = 0; c < p->c / p->groups; c++)
        for (int u = 0; u < p->kh; u++)
        for (int v = 0; v < p->kw; v++) {
            int row = i * p->stride_h + u * p->dilation_h - p->top;
            int col = j * p->stride_w + v * p->dilation_w - p->left;
            if (row < 0 || row >= p->h || col < 0 || col >= p->w) continue; /* a zero of the padding */
            sum += weight[w_at(p, k, c, u, v)] * x[x_at(p, n, first_channel(p, k) + c, row, col)];
        }
        y[y_at(p, n, k, i, j)] = bias ? sum + bias[k] : sum;
    }
}

/* Each product of the forward pass, read backwards: what x was multiplied with is added where x was read. */
static void conv_input_grad(const Conv *p, const float *grad_output, const float *weight, float *grad_x)
{
    memset(grad_x, 0, sizeof(float) * p->n * p->c * p->h * p->w);
    for (int n = 0; n < p->n; n++)
    for (int k = 0; k < p->k; k++)
    for (int i = 0; i < p->oh; i++)
    for (int j = 0; j < p->ow; j++) {
        float g = grad_output[y_at(p, n, k, i, j)];
        for (int c = 0; c < p->c / p->groups; c++)
        for (int u = 0; u < p->kh; u++)
        for (int v = 0; v < p->kw; v++) {
            int to_row = i * p->stride_h + u * p->dilation_h - p->top;
            int to_col = j * p->stride_w + v * p->dilation_w - p->left;
            if (to_row < 0 || to_row >= p->h || to_col < 0 || to_col >= p->w) continue;
            grad_x[x_at(p, n, first_channel(p, k) + c, to_row, to_col)] += g * weight[w_at(p, k, c, u, v)];
        }
    }
}

/* And what the weight was multiplied with, summed over samples and positions. */
static void conv_weight_grad(const Conv *p, const float *grad_output, const float *x, float *grad_weight)
{
    for (int k = 0; k < p->k; k++)
    for (int c = 0; c < p->c / p->groups; c++)
    for (int u = 0; u < p->kh; u++)
    for (int v = 0; v < p->kw; v++) {
        float total = 0;
        for (int n = 0; n < p->n; n++)
        for (int i = 0; i < p->oh; i++)
        for (int j = 0; j < p->ow; j++) {
            int at_row = i * p->stride_h + u * p->dilation_h - p->top;
            int at_col = j * p->stride_w + v * p->dilation_w - p->left;
            if (at_row < 0 || at_row >= p->h || at_col < 0 || at_col >= p->w) continue;
            total += grad_output[y_at(p, n, k, i, j)] * x[x_at(p, n, first_channel(p, k) + c, at_row, at_col)];
        }
        grad_weight[w_at(p, k, c, u, v)] = total;
    }
}

static void conv_bias_grad(const Conv *p, const float *grad_output, float *grad_bias)
{
    for (int k = 0; k < p->k; k++) {
        grad_bias[k] = 0;
        for (int n = 0; n < p->n; n++)
        for (int i = 0; i < p->oh; i++)
        for (int j = 0; j < p->ow; j++)
            grad_bias[k] += grad_output[y_at(p, n, k, i, j)];
    }
}

/* ---- Reading ------------------------------------------------------------------------------------------------------ */

static void *allocate(size_t bytes)
{
    void *memory = malloc(bytes + 1); /* an empty batch has arrays of no bytes */
    if (!memory) {
        fprintf(stderr, "conv: out of memory\n");
        exit(2);
    }
    return memory;
}

/* Read one array: a magic word, the header's length, the header, and then the numbers, in C order, little endian.
 * This machine must be little endian too. */
static void *read_npy(const char *folder, const char *id, const char *name, const char *type, size_t count)
{
    char path[4096];
    unsigned char start[10];
    size_t size = (size_t)(type[2] - '0'), length;
    snprintf(path, sizeof path, "%s/arrays/%s/%s.npy", folder, id, name);
    FILE *file = fopen(path, "rb");
    if (!file || fread(start, 1, 10, file) != 10 || memcmp(start, "\x93NUMPY\x01\x00", 8) != 0) {
        fprintf(stderr, "conv: %s is no .npy file of version 1.0\n", path);
        exit(2);
    }
    length = start[8] + 256u * start[9];
    char *header = allocate(length);
    int whole = fread(header, 1, length, file) == length;
    header[length] = 0;
    if (!whole || !strstr(header, type) || !strstr(header, "'fortran_order': False")) {
        fprintf(stderr, "conv: %s must hold %s in C order\n", path, type);
        exit(2);
    }
    free(header);
    void *data = allocate(size * count);
    if (fread(data, size, count, file) != count || fgetc(file) != EOF) {
        fprintf(stderr, "conv: %s must hold %lu numbers\n", path, (unsigned long)count);
        exit(2);
    }
    fclose(file);
    return data;
}

/* ---- Comparing ---------------------------------------------------------------------------------------------------- */

/* Return whether a result is right, and say where it first is not. */
static int compare(const char *folder, const char *id, const char *name, int exact, const float *actual, size_t count)
{
    char file[64];
    snprintf(file, sizeof file, "expected_%s", name);
    void *expected = read_npy(folder, id, file, exact ? "<f4" : "<f8", count);
    double *bound = NULL;
    if (!exact) {
        snprintf(file, sizeof file, "bound_%s", name);
        bound = read_npy(folder, id, file, "<f8", count);
    }
    size_t wrong = count;
    for (size_t i = count; i-- > 0;) {
        double want = exact ? ((float *)expected)[i] : ((double *)expected)[i];
        int same = exact ? actual[i] == want || (isnan(actual[i]) && isnan(want)) : fabs(actual[i] - want) <= bound[i];
        if (!same) wrong = i;
    }
    if (wrong < count) {
        double want = exact ? ((float *)expected)[wrong] : ((double *)expected)[wrong];
        printf("WRONG %s %s: element %lu is %.9g, not %.9g\n", id, name, (unsigned long)wrong, actual[wrong], want);
    }
    free(expected);
    free(bound);
    return wrong == count;
}

static int check(const char *folder, const char *id, int exact, const Conv *p, int has_bias, int has_gradients)
{
    size_t x_size = (size_t)p->n * p->c * p->h * p->w, y_size = (size_t)p->n * p->k * p->oh * p->ow;
    size_t w_size = (size_t)p->k * (p->c / p->groups) * p->kh * p->kw;
    float *x = read_npy(folder, id, "x", "<f4", x_size);
    float *weight = read_npy(folder, id, "weight", "<f4", w_size);
    float *bias = has_bias ? read_npy(folder, id, "bias", "<f4", p->k) : NULL;
    float *y = allocate(sizeof(float) * y_size);
    conv_forward(p, x, weight, bias, y);
    int right = compare(folder, id, "y", exact, y, y_size);
    if (has_gradients) {
        float *g = read_npy(folder, id, "grad_output", "<f4", y_size);
        float *grad_x = allocate(sizeof(float) * x_size);
        float *grad_weight = allocate(sizeof(float) * w_size);
        float *grad_bias = allocate(sizeof(float) * p->k);
        conv_input_grad(p, g, weight, grad_x);
        conv_weight_grad(p, g, x, grad_weight);
        conv_bias_grad(p, g, grad_bias);
        right &= compare(folder, id, "grad_x", exact, grad_x, x_size);
        right &= compare(folder, id, "grad_weight", exact, grad_weight, w_size);
        right &= compare(folder, id, "grad_bias", exact, grad_bias, p->k);
        free(g), free(grad_x), free(grad_weight), free(grad_bias);
    }
    free(x), free(weight), free(bias), free(y);
    return right;
}

int main(int argc, char **argv)
{
    FILE *list = argc == 3 ? fopen(argv[2], "r") : NULL;
    if (!list) {
        fprintf(stderr, "usage: conv DIR LIST\n");
        return 2;
    }
    char id[256], kind[16];
    int problems = 0, wrong = 0, has_bias, has_gradients, read;
    Conv p;
    while ((read = fscanf(list, "%255s %15s %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d", id, kind, &p.n, &p.c,
                          &p.h, &p.w, &p.k, &p.kh, &p.kw, &p.stride_h, &p.stride_w, &p.top, &p.bottom, &p.left,
                          &p.right, &p.dilation_h, &p.dilation_w, &p.groups, &has_bias, &has_gradients)) == 20) {
        p.oh = output_size(p.h, p.top, p.bottom, p.kh, p.stride_h, p.dilation_h);
        p.ow = output_size(p.w, p.left, p.right, p.kw, p.stride_w, p.dilation_w);
        problems++;
        wrong += !check(argv[1], id, strcmp(kind, "exact") == 0, &p, has_bias, has_gradients);
    }
    fclose(list);
    if (read != EOF || problems == 0) {
        fprintf(stderr, "conv: line %d of %s is not a problem\n", problems + 1, argv[2]);
        return 2;
    }
    printf("%d problems, %d wrong\n", problems, wrong);
    return wrong > 0;
}
