//! An encoder that runs certain sizes only, from and to memory that stays where it is.
//!
//! It is how a GPU is fed: every bucket has a tensor in host memory that the device reads fast, one in device memory
//! that it is copied to, and an output beside it, all bound to the session once. Launching the same kernels at the same
//! addresses can be recorded as a CUDA graph and replayed. A replay reads device memory and nothing else, so inputs
//! are copied there by hand: a host tensor that is bound would not be read again. Results come back to ordinary host
//! memory: `ort` copies in a session of its own, which ONNX Runtime 1.31 fails where that ends in pinned memory. And
//! embeddings are small.
//!
//! Where memory is, is all it knows of the device, so tests run it on the CPU provider.

use ndarray::Array2;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, NoSelectedOutputs, RunOptions, Session};
use ort::value::{PrimitiveTensorElementType, Tensor};

use super::EngineError;

/// The run option by which ONNX Runtime tells the CUDA graphs of a session apart.
const GRAPH_ID: &str = "gpu_graph_id";

/// Where inputs and outputs are.
#[derive(Clone)]
pub(super) enum Memory {
    /// All in host memory.
    #[cfg(test)]
    Host,
    /// Memory of the device with this number, and host memory that it copies from without a detour.
    Device { device: AllocationDevice<'static>, pinned: AllocationDevice<'static>, id: i32 },
}

/// Both tensors of a bucket: rows are put together in the first, and the second is what the session reads.
pub(super) struct TensorPair<T: PrimitiveTensorElementType + Default + Copy + std::fmt::Debug + 'static> {
    host: Tensor<T>,
    device: Tensor<T>,
}

/// An encoder with its bound tensors.
pub(super) struct BoundEncoder {
    session: Session,
    memory: Memory,
    /// Of the graph's input and output.
    names: [String; 2],
    embed_dim: usize,
    runs: Vec<Run>,
}

/// What runs one bucket of one input.
struct Run {
    binding: IoBinding,
    options: RunOptions<NoSelectedOutputs>,
    device: Tensor<f32>,
    host: Tensor<f32>,
}

/// Names a [`Run`] of its encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunId(usize);

impl BoundEncoder {
    pub(super) fn new(session: Session, memory: Memory, embed_dim: usize) -> BoundEncoder {
        let names = [session.inputs()[0].name().to_owned(), session.outputs()[0].name().to_owned()];
        BoundEncoder { session, memory, names, embed_dim, runs: Vec::new() }
    }

    /// Allocates the tensors of a bucket, zeroed, and binds them.
    pub(super) fn bind<T>(&mut self, shape: &[usize]) -> Result<(RunId, TensorPair<T>), EngineError>
    where
        T: PrimitiveTensorElementType + Default + Copy + std::fmt::Debug + 'static,
    {
        let mut staged = TensorPair {
            host: Tensor::new(&self.memory.pinned(&self.session)?, shape.to_vec())?,
            device: Tensor::new(&self.memory.device(&self.session)?, shape.to_vec())?,
        };
        staged.host.extract_tensor_mut().1.fill(T::default());
        staged.copy()?;
        let result = [shape[0], self.embed_dim];
        let mut run = Run {
            binding: self.session.create_binding()?,
            options: RunOptions::new()?,
            device: Tensor::new(&self.memory.device(&self.session)?, result)?,
            host: Tensor::new(&Allocator::default(), result)?,
        };
        let [input, output] = &self.names;
        run.binding.bind_input(input, &staged.device)?;
        run.binding.bind_output(output, &mut run.device)?;
        run.options.set(GRAPH_ID, self.runs.len().to_string())?;
        self.runs.push(run);
        Ok((RunId(self.runs.len() - 1), staged))
    }

    /// The embeddings of the first `rows` rows of what was copied last.
    pub(super) fn run(&mut self, id: RunId, rows: usize) -> Result<Array2<f32>, EngineError> {
        let run = &mut self.runs[id.0];
        self.session.run_binding_with_options(&run.binding, &run.options)?;
        run.device.copy_into(&mut run.host)?;
        let (_, values) = run.host.extract_tensor();
        let values = values[..rows * self.embed_dim].to_vec();
        Ok(Array2::from_shape_vec([rows, self.embed_dim], values).expect("a row has as many values"))
    }
}

impl<T: PrimitiveTensorElementType + Default + Copy + std::fmt::Debug + 'static> TensorPair<T> {
    /// All rows, one after another. What is not written keeps what was there.
    pub(super) fn values(&mut self) -> &mut [T] {
        self.host.extract_tensor_mut().1
    }

    /// To where the session reads them. Returns when it is done.
    pub(super) fn copy(&mut self) -> Result<(), EngineError> {
        Ok(self.host.copy_into(&mut self.device)?)
    }
}

impl Memory {
    fn device(&self, session: &Session) -> Result<Allocator, EngineError> {
        match self {
            #[cfg(test)]
            Memory::Host => Ok(Allocator::default()),
            Memory::Device { device, id, .. } => allocator(session, device.clone(), *id, MemoryType::Default),
        }
    }

    fn pinned(&self, session: &Session) -> Result<Allocator, EngineError> {
        match self {
            #[cfg(test)]
            Memory::Host => Ok(Allocator::default()),
            Memory::Device { pinned, id, .. } => {
                allocator(session, pinned.clone(), *id, MemoryType::CPUInput)
            }
        }
    }
}

fn allocator(
    session: &Session,
    device: AllocationDevice<'_>,
    id: i32,
    usage: MemoryType,
) -> Result<Allocator, EngineError> {
    Ok(Allocator::new(session, MemoryInfo::new(device, id, AllocatorType::Device, usage)?)?)
}
