// distance_sums: for every row x_i, every segmentation s and every cluster c of it
//
//     sums[i, slot(s, c)] = sum over {j != i, label_s(j) = c} of |x_i - x_j|
//
// for all segmentations in one pass over the pairs, because a distance does not depend on
// the segmentation. Columns (the x_j) are sorted by their cell, the tuple of their labels
// in all segmentations, so a row needs one running sum per cell, and only where a cell
// ends is that sum added to one slot of each segmentation.
//
// A block owns 8 rows for every 16 of its threads and walks over column tiles of 128. A
// thread holds 8 x 8 pairs in registers: first their squared distances, chunk by chunk of
// `depth` features through shared memory, then its sums over groups of 4 columns.
//
// Squared distances are expanded, |x|^2 + |y|^2 - 2 x.y, on centred data: one multiply-add
// per feature. That loses precision for two rows that are much closer to each other than
// to the centre, so a tile with such a pair is done again by differences of the uncentred
// data, good to a few units in the last place always; the next tile then starts with
// differences, until one would not have needed them. A row and itself are such a pair,
// and x - x is exactly 0. Padding columns are NaN, which fminf and fmaxf ignore.
//
// Arguments (device pointers, C order)
//     columns         (n_features, n_columns) float   uncentred; NaN in padding columns
//     sq_norms        (n_columns,)            float   |column - centre|^2; 0 in padding
//     centre          (n_features,)           float
//     tile_cells      (n_columns / 128,)      int     cell in which each tile begins
//     cell_ends       (n_cells,)              int     group of 4 columns past each cell
//     cell_slots      (n_cells, n_segmentations) int  slot of each cell in each segmentation
//     row_columns     (n_rows,)               int64   column of each row, best ascending
//     sums            (gridDim.y, n_rows, n_slots) double, zero at the start
//     n_columns       int64, a multiple of 128; cell follows cell, each in whole groups of 4
//     part_tiles      column tiles for each blockIdx.y
//     depth           features per chunk, 1 to n_features
//     close_share     float: a pair is close below this share of |x|^2 + |y|^2; above 2,
//                     where all are, everything is done by differences
//
// Launch: any grid, blocks of BLOCK_THREADS. gridDim.x walks over the rows; gridDim.y cuts
// the columns, and the caller adds the parts up.
// Shared memory, R = BLOCK_THREADS / 2: 8 R + 4 (32 (R + 4) + 128 + R + depth (128 + R)) bytes.
// Precision: float32 within a tile of 128 columns, float64 across tiles.
// Repeated runs of one launch shape are bit-equal: no atomics, every sum has one owner.
// Silhouettes: Rousseeuw, J. Comput. Appl. Math. 20 (1987), 53-65.

// 32 to 256 in steps of 32
#ifndef BLOCK_THREADS
#define BLOCK_THREADS 256
#endif

constexpr int kMicro = 8;                // a thread's pairs: kMicro rows by kMicro columns
constexpr int kGroup = 4;                // columns that share a cell
constexpr int kTile = 128;               // columns of a tile
constexpr int kLanes = kTile / kMicro;   // threads side by side along the columns
constexpr int kGroups = kTile / kGroup;  // groups of a tile
constexpr int kRows = BLOCK_THREADS / kLanes * kMicro;

struct Data {
    const float* columns;
    const float* sq_norms;
    const float* centre;
    const long long* row_columns;
    long long n_columns;
    int n_rows;
    int n_features;
    int depth;
    float close_share;
};

struct Cells {
    const int* of_tile;
    const int* ends;
    const int* slots;
    int n_segmentations;
};

// One feature of the tile's columns and of the block's rows.
struct Feature {
    float columns[kTile];
    float rows[kRows];
};

// The block's shared memory; `depth` features follow.
struct alignas(16) Shared {
    double totals[kRows];
    float sums[kGroups][kRows + 4];  // the 4 spreads the groups over the banks
    float col_norms[kTile];
    float row_norms[kRows];
};

static __device__ __forceinline__ Feature* features_of(Shared& shared) {
    return reinterpret_cast<Feature*>(&shared + 1);
}

// Rows past the end repeat the last one; nobody reads their sums.
static __device__ __forceinline__ long long column_of_row(const Data& data, int row) {
    return data.row_columns[row < data.n_rows ? row : data.n_rows - 1];
}

// First of a thread's rows within the block.
static __device__ __forceinline__ int first_row() { return threadIdx.x / kLanes * kMicro; }

// Column within the tile of a thread's b-th pair: two groups, half a tile apart, so that
// the lanes of a warp read neighbouring banks.
static __device__ __forceinline__ int tile_column(int b) {
    return b / kGroup * (kTile / 2) + threadIdx.x % kLanes * kGroup + b % kGroup;
}

static __device__ __forceinline__ void load_rows(const Data& data, Shared& shared, int row0,
                                                 int feature0, int n_features, bool centred) {
    const int i = threadIdx.x % kRows;
    const long long column = column_of_row(data, row0 + i);
#pragma unroll 2
    for (int f = threadIdx.x / kRows; f < n_features; f += BLOCK_THREADS / kRows) {
        const long long feature = feature0 + f;
        const float x = data.columns[feature * data.n_columns + column];
        features_of(shared)[f].rows[i] = x - (centred ? data.centre[feature] : 0.0f);
    }
    if (feature0 == 0 && threadIdx.x < kRows) shared.row_norms[i] = data.sq_norms[column];
}

// Each warp loads whole features of the tile, 4 columns to a thread.
static __device__ __forceinline__ void load_columns(const Data& data, Shared& shared,
                                                    long long column0, int feature0,
                                                    int n_features, bool centred) {
    constexpr int kWarp = kTile / 4;
    const int j = threadIdx.x % kWarp * 4;
#pragma unroll 2
    for (int f = threadIdx.x / kWarp; f < n_features; f += BLOCK_THREADS / kWarp) {
        const long long feature = feature0 + f;
        const float c = centred ? data.centre[feature] : 0.0f;
        const float4 x = *reinterpret_cast<const float4*>(
            data.columns + feature * data.n_columns + column0 + j);
        *reinterpret_cast<float4*>(features_of(shared)[f].columns + j) =
            make_float4(x.x - c, x.y - c, x.z - c, x.w - c);
    }
    if (feature0 > 0) return;
#pragma unroll 1
    for (int k = threadIdx.x; k < kTile; k += BLOCK_THREADS) {
        shared.col_norms[k] = data.sq_norms[column0 + k];
    }
}

// Two runs of 4 values, each as one 128-bit load.
static __device__ __forceinline__ void load8(const float* first, const float* second,
                                             float (&values)[kMicro]) {
    const float4 low = *reinterpret_cast<const float4*>(first);
    const float4 high = *reinterpret_cast<const float4*>(second);
    values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
    values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
}

// Add the chunk's features to the 64 products (expanded) or squared differences.
template <bool expanded>
static __device__ __forceinline__ void add_features(Shared& shared, int n_features,
                                                    float (&pairs)[kMicro][kMicro]) {
    const Feature* feature = features_of(shared);
#pragma unroll 2
    for (int f = 0; f < n_features; ++f, ++feature) {
        float x[kMicro], y[kMicro];
        load8(feature->rows + first_row(), feature->rows + first_row() + 4, x);
        load8(feature->columns + tile_column(0), feature->columns + tile_column(kGroup), y);
#pragma unroll
        for (int a = 0; a < kMicro; ++a) {
#pragma unroll
            for (int b = 0; b < kMicro; ++b) {
                const float difference = x[a] - y[b];
                pairs[a][b] = expanded ? fmaf(x[a], y[b], pairs[a][b])
                                       : fmaf(difference, difference, pairs[a][b]);
            }
        }
    }
}

// Turn products into squared distances; say whether a pair is too close for that.
template <bool expanded>
static __device__ __forceinline__ bool finish_squares(Shared& shared, float close_share,
                                                      float (&pairs)[kMicro][kMicro]) {
    float x[kMicro], y[kMicro];
    load8(shared.row_norms + first_row(), shared.row_norms + first_row() + 4, x);
    load8(shared.col_norms + tile_column(0), shared.col_norms + tile_column(kGroup), y);
    float closest = 0.0f;
#pragma unroll
    for (int a = 0; a < kMicro; ++a) {
#pragma unroll
        for (int b = 0; b < kMicro; ++b) {
            const float norms = x[a] + y[b];
            if (expanded) pairs[a][b] = fmaf(-2.0f, pairs[a][b], norms);
            closest = fminf(closest, fmaf(-close_share, norms, pairs[a][b]));
        }
    }
    return closest < 0.0f;
}

// Squared distances of the thread's pairs; returns whether one of them is close.
// `resident` remembers what the shared rows hold, to load them once if they fit.
template <bool expanded>
static __device__ __forceinline__ bool square_distances(const Data& data, Shared& shared,
                                                        int row0, long long column0,
                                                        int& resident,
                                                        float (&pairs)[kMicro][kMicro]) {
#pragma unroll
    for (int a = 0; a < kMicro; ++a) {
#pragma unroll
        for (int b = 0; b < kMicro; ++b) pairs[a][b] = 0.0f;
    }
    for (int feature0 = 0; feature0 < data.n_features; feature0 += data.depth) {
        const int n_features = min(data.depth, data.n_features - feature0);
        if (feature0 > 0) __syncthreads();  // everyone is done with the last chunk
        if (data.depth < data.n_features || resident != expanded) {
            load_rows(data, shared, row0, feature0, n_features, expanded);
        }
        load_columns(data, shared, column0, feature0, n_features, expanded);
        __syncthreads();
        add_features<expanded>(shared, n_features, pairs);
    }
    resident = expanded;
    return finish_squares<expanded>(shared, data.close_share, pairs);
}

// Put the sums of the thread's distances, by row and group of columns, where the rows'
// owners find them.
static __device__ __forceinline__ void share_sums(Shared& shared,
                                                  const float (&pairs)[kMicro][kMicro]) {
#pragma unroll
    for (int b = 0; b < kMicro; b += kGroup) {
        float sums[kMicro];
#pragma unroll
        for (int a = 0; a < kMicro; ++a) {
            sums[a] = 0.0f;
#pragma unroll
            for (int c = b; c < b + kGroup; ++c) {
                sums[a] += approximate_sqrt(fmaxf(pairs[a][c], 0.0f));
            }
        }
        float4* target =
            reinterpret_cast<float4*>(shared.sums[tile_column(b) / kGroup] + first_row());
        target[0] = make_float4(sums[0], sums[1], sums[2], sums[3]);
        target[1] = make_float4(sums[4], sums[5], sums[6], sums[7]);
    }
}

// Add the tile to the sums of the thread's own row, cell by cell. The total of a cell that
// goes on in the next tile waits in shared memory, where only its owner looks.
static __device__ __forceinline__ void add_tile(const Cells& cells, Shared& shared, int tile,
                                                bool is_last, double* row_sums) {
    double total = shared.totals[threadIdx.x];
    int group = 0;
#pragma unroll 1
    for (int cell = cells.of_tile[tile]; group < kGroups; ++cell) {
        const int cell_end = cells.ends[cell] - tile * kGroups;
        const int end = min(cell_end, kGroups);
        float run = 0.0f;
#pragma unroll 4
        for (; group < end; ++group) run += shared.sums[group][threadIdx.x];
        total += run;
        if (cell_end > kGroups && !is_last) break;
        const int* slots = cells.slots + (long long)cell * cells.n_segmentations;
#pragma unroll 1
        for (int s = 0; s < cells.n_segmentations; ++s) row_sums[slots[s]] += total;
        total = 0.0;
    }
    shared.totals[threadIdx.x] = total;
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 512 / BLOCK_THREADS) distance_sums(
    const float* __restrict__ columns, const float* __restrict__ sq_norms,
    const float* __restrict__ centre, const int* __restrict__ tile_cells,
    const int* __restrict__ cell_ends, const int* __restrict__ cell_slots,
    const long long* __restrict__ row_columns, double* __restrict__ sums, long long n_columns,
    int n_rows, int n_features, int n_segmentations, int n_slots, int part_tiles, int depth,
    float close_share) {
    DYNAMIC_SHARED(float4, storage);
    Shared& shared = *reinterpret_cast<Shared*>(storage);
    const Data data = {columns, sq_norms,   centre, row_columns, n_columns,
                       n_rows,  n_features, depth,  close_share};
    const Cells cells = {tile_cells, cell_ends, cell_slots, n_segmentations};
    const int tile_begin = blockIdx.y * part_tiles;
    const int tile_end = min(tile_begin + part_tiles, (int)(n_columns / kTile));
    float pairs[kMicro][kMicro];

    if (threadIdx.x < kRows) shared.totals[threadIdx.x] = 0.0;
    for (int row0 = blockIdx.x * kRows; row0 < n_rows; row0 += gridDim.x * kRows) {
        int resident = -1;
        bool differences = false;
        for (int tile = tile_begin; tile < tile_end; ++tile) {
            const long long column0 = (long long)tile * kTile;
            for (bool done = false; !done;) {
                done = differences;
                bool close =
                    differences
                        ? square_distances<false>(data, shared, row0, column0, resident, pairs)
                        : square_distances<true>(data, shared, row0, column0, resident, pairs);
                close = __syncthreads_or(close);
                done = done || !close;
                differences = close;
            }
            share_sums(shared, pairs);
            __syncthreads();
            const int row = row0 + threadIdx.x;
            if (threadIdx.x < kRows && row < n_rows) {
                add_tile(cells, shared, tile, tile + 1 == tile_end,
                         sums + ((long long)blockIdx.y * n_rows + row) * n_slots);
            }
        }
    }
}
