//! A graph as files: `NAME` is the protobuf, `NAME.data` has the weights as ONNX external data.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use prost::Message;

use super::onnx::{ModelProto, StringStringEntryProto};
use super::{Graph, Weight};

/// Every weight begins at a multiple of this, so that readers can map it into memory (a page).
const ALIGNMENT: u64 = 4096;

impl Graph {
    /// Writes both files into `directory`; it does not overwrite any.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, directory: &Path, name: &str) -> io::Result<()> {
        let data_name = format!("{name}.data");
        let mut data = BufWriter::new(File::create_new(directory.join(&data_name))?);
        let mut proto = ModelProto::decode(self.proto.as_slice()).expect("it was encoded here");
        let initializers = &mut proto.graph.get_or_insert_default().initializer;
        let mut end: u64 = 0;
        for Weight { name, values, .. } in &self.weights {
            let start = end.next_multiple_of(ALIGNMENT);
            data.write_all(&vec![0; (start - end) as usize])?;
            data.write_all(values.bytes())?;
            end = start + values.bytes().len() as u64;
            let tensor = initializers.iter_mut().find(|tensor| tensor.name == *name);
            tensor.expect("every weight has its initializer").external_data = [
                ("location", data_name.clone()),
                ("offset", start.to_string()),
                ("length", (end - start).to_string()),
            ]
            .map(|(key, value)| StringStringEntryProto { key: key.to_owned(), value })
            .to_vec();
        }
        data.flush()?;
        File::create_new(directory.join(name))?.write_all(&proto.encode_to_vec())
    }
}
