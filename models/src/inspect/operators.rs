//! The operators that a runtime may have.
//!
//! **Invariant:** what is not known here is in no released runtime without an extension of its own.

use super::Operator;

/// The operators of ONNX itself, by name (operator sets 1 to 24, without those for training).
const ONNX: &str = "Abs Acos Acosh Add AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh Attention \
    AveragePool BatchNormalization Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor \
    BlackmanWindow Cast CastLike Ceil Celu CenterCropPad Clip Col2Im Compress Concat \
    ConcatFromSequence Constant ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh CumSum DFT \
    DeformConv DepthToSpace DequantizeLinear Det Div Dropout DynamicQuantizeLinear Einsum Elu Equal \
    Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm \
    GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample \
    GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish Hardmax Identity If \
    ImageDecoder InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less \
    LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul MatMulInteger Max MaxPool \
    MaxRoiPool MaxUnpool Mean MeanVarianceNormalization MelWeightMatrix Min Mish Mod Mul \
    Multinomial Neg NonMaxSuppression NonZero Not OneHot Optional OptionalGetElement \
    OptionalHasElement Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization \
    RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 \
    ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum \
    ReduceSumSquare RegexFullMatch Relu Reshape Resize ReverseSequence RoiAlign RotaryEmbedding \
    Round STFT Scan Scatter ScatterElements ScatterND Selu SequenceAt SequenceConstruct \
    SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap Shape Shrink Sigmoid Sign \
    Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split SplitToSequence Sqrt Squeeze \
    StringConcat StringNormalizer StringSplit Sub Sum Swish Tan Tanh TensorScatter TfIdfVectorizer \
    ThresholdedRelu Tile TopK Transpose Trilu Unique Unsqueeze Upsample Where Xor";

/// Domains with operators that ONNX Runtime has; it says by name which it lacks.
const OF_ONNX_RUNTIME: [&str; 3] = ["ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"];

/// Whether a runtime may have the operator.
pub(super) fn is_known(operator: &Operator) -> bool {
    match &*operator.domain {
        "" => ONNX.split_whitespace().any(|name| name == operator.name),
        domain => OF_ONNX_RUNTIME.contains(&domain),
    }
}
