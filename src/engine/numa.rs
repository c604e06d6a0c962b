//! Keeps a thread on the CPU cores beside its GPU, where Linux tells which these are.
//!
//! Best effort: without NVIDIA's driver, or on a machine with one node, nothing happens. GPUs are numbered as the
//! driver lists them, by bus; `CUDA_DEVICE_ORDER=PCI_BUS_ID` makes CUDA count in the same way.

use std::path::Path;

use rustix::thread::{CpuSet, sched_setaffinity};

/// Called on the thread that runs the GPU.
pub(super) fn pin_to_gpu(gpu: usize) {
    let Some(cores) = cores_beside(Path::new("/"), gpu) else { return };
    let mut set = CpuSet::new();
    cores.iter().filter(|core| **core < CpuSet::MAX_CPU).for_each(|core| set.set(*core));
    match sched_setaffinity(None, &set) {
        Ok(()) => tracing::info!(gpu, cores = cores.len(), "worker pinned to the cores beside its GPU"),
        Err(error) => tracing::warn!(gpu, %error, "worker not pinned"),
    }
}

/// `None` where it is not known, or where there is one node and so nothing to choose.
fn cores_beside(root: &Path, gpu: usize) -> Option<Vec<usize>> {
    let gpus = std::fs::read_dir(root.join("proc/driver/nvidia/gpus")).ok()?;
    let mut buses: Vec<String> =
        gpus.filter_map(|entry| entry.ok()?.file_name().to_str().map(str::to_lowercase)).collect();
    buses.sort();
    let device = root.join("sys/bus/pci/devices").join(buses.get(gpu)?);
    let node: usize = std::fs::read_to_string(device.join("numa_node")).ok()?.trim().parse().ok()?;
    let nodes = root.join("sys/devices/system/node");
    nodes.join("node1").exists().then_some(())?;
    cores(&std::fs::read_to_string(nodes.join(format!("node{node}/cpulist"))).ok()?)
}

/// Of a list such as `0-15,32-47`.
fn cores(list: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cores_beside_a_gpu_are_found_by_its_bus() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        for (bus, node) in [("0000:17:00.0", "0\n"), ("0000:ca:00.0", "1\n"), ("0000:d0:00.0", "-1\n")] {
            write(&format!("proc/driver/nvidia/gpus/{}/information", bus.to_uppercase()), "");
            write(&format!("sys/bus/pci/devices/{bus}/numa_node"), node);
        }
        write("sys/devices/system/node/node0/cpulist", "0-1,4-5\n");
        assert_eq!(cores_beside(root.path(), 0), None, "one node");
        write("sys/devices/system/node/node1/cpulist", "2-3,6\n");
        assert_eq!(cores_beside(root.path(), 0), Some(vec![0, 1, 4, 5]));
        assert_eq!(cores_beside(root.path(), 1), Some(vec![2, 3, 6]));
        assert_eq!(cores_beside(root.path(), 2), None, "the node is not known");
        assert_eq!(cores_beside(root.path(), 3), None, "no such GPU");
        assert_eq!(cores_beside(&root.path().join("elsewhere"), 0), None, "no driver");
    }
}
