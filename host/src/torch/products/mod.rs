//! Which kernels compute the matrix products of a thread: libtorch's, or those of the crate `gemm`.
//!
//! libtorch's products come from MKL, which takes its fastest path only on processors of its maker. `products.cpp` puts a
//! kernel of ours below autograd, where each product of f32 passes, and this module says on which threads it is used.

mod kernel;

use std::marker::PhantomData;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::{TorchError, error::check, fused, shim};

pub(super) use kernel::Product;

/// Who computes the products of f32 on the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Products {
    /// libtorch's BLAS.
    Libtorch,
    /// The crate `gemm`, by the instructions that this processor has.
    Gemm,
}

impl Products {
    /// The faster one on this processor: `gemm` where there is AVX-512 and MKL does not use it.
    pub fn fastest() -> Products {
        if processor::has_avx512() && !processor::is_intel() { Products::Gemm } else { Products::Libtorch }
    }

    /// A description for the console: who, and by which instructions.
    pub fn description(self) -> String {
        match self {
            Products::Libtorch => "libtorch".to_owned(),
            Products::Gemm if processor::has_avx512() => "gemm x86-v4".to_owned(),
            Products::Gemm if processor::has_avx2() => "gemm x86-v3".to_owned(),
            Products::Gemm => format!("gemm {}", std::env::consts::ARCH),
        }
    }
}

/// The kind of this processor: its maker, family and model, or else its architecture, and the instructions that count here. On
/// processors of one kind, the same kernels give the same bits, as long as the system shows the same caches.
pub fn processor() -> &'static str {
    // A hypervisor answers for the processor, which takes as long as many a step.
    static KIND: LazyLock<String> = LazyLock::new(processor::kind);
    &KIND
}

/// Products on this thread are computed by the one given, until this is dropped. Guards nest.
#[derive(Debug)]
#[must_use = "the kernels of before are back when the guard is dropped"]
pub struct ProductsGuard {
    previous: Products,
    current: Products,
    /// It is a property of the thread, so the guard must not leave it.
    _thread: PhantomData<*const ()>,
}

/// Has the products of f32 that are asked for on this thread, and in its backward passes, computed by `products`. They may run
/// on all of libtorch's threads.
///
/// # Errors
///
/// When libtorch refuses.
pub fn enter(products: Products) -> Result<ProductsGuard, TorchError> {
    let previous = exchange(products)?;
    Ok(ProductsGuard { previous, current: products, _thread: PhantomData })
}

impl ProductsGuard {
    /// Who computes while it is there.
    pub fn current(&self) -> Products {
        self.current
    }
}

impl Drop for ProductsGuard {
    fn drop(&mut self) {
        // It fails only where the kernel cannot be put in, which it is.
        let _ = exchange(self.previous);
    }
}

fn exchange(products: Products) -> Result<Products, TorchError> {
    let own: Option<shim::ProductKernel> = match products {
        Products::Libtorch => None,
        Products::Gemm => Some(kernel::compute),
    };
    let mut was_gemm = false;
    // SAFETY: `was_gemm` is a place to write to, and the kernel computes what the shim's products are.
    check(unsafe { shim::host_torch_products(own, &mut was_gemm) }, "products")?;
    fused::choose(match products {
        Products::Libtorch => fused::Choice::Libtorch,
        Products::Gemm => fused::Choice::Fastest,
    });
    Ok(if was_gemm { Products::Gemm } else { Products::Libtorch })
}

#[cfg(target_arch = "x86_64")]
mod processor {
    //! What the processor says of itself.

    use std::arch::is_x86_feature_detected;
    use std::arch::x86_64::__cpuid;

    pub(super) fn has_avx512() -> bool {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512cd")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
    }

    pub(super) fn has_avx2() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }

    pub(super) fn is_intel() -> bool {
        maker() == "GenuineIntel"
    }

    fn maker() -> String {
        // The leaf that every processor has: its maker's name, in three registers.
        let leaf = __cpuid(0);
        String::from_utf8_lossy(&[leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat()).into_owned()
    }

    pub(super) fn kind() -> String {
        // Both numbers are in two parts: the second one is added to the first, or set before it.
        let signature = __cpuid(1).eax;
        let bits = |from: u32, count: u32| (signature >> from) & ((1 << count) - 1);
        let family = bits(8, 4) + if bits(8, 4) == 15 { bits(20, 8) } else { 0 };
        let model = bits(4, 4) | bits(16, 4) << 4;
        let instructions = if has_avx512() { "x86-v4" } else { "x86-v3 or before" };
        format!("{} family {family} model {model}, {instructions}", maker())
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod processor {
    //! Processors whose libtorch has its own kernels.

    pub(super) fn has_avx512() -> bool {
        false
    }

    pub(super) fn has_avx2() -> bool {
        false
    }

    pub(super) fn is_intel() -> bool {
        false
    }

    pub(super) fn kind() -> String {
        std::env::consts::ARCH.to_owned()
    }
}

#[cfg(test)]
mod tests;
