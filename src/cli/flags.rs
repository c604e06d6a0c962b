//! Flags of the subcommands that speak to a running server.

use std::path::{Path, PathBuf};

use clap::Args;
use http::Uri;

#[derive(Clone, Debug, Args)]
pub struct ServerFlags {
    /// Address of the server. CLIPD_API_KEY in the environment is sent with every call, as a bearer token
    #[arg(long, env = "CLIPD_ADDR", default_value = "http://127.0.0.1:50051", value_parser = address)]
    pub addr: Uri,
    #[command(flatten)]
    pub tls: TlsFlags,
}

/// Whom a client trusts, and what it shows of itself.
#[derive(Clone, Debug, Default, Args)]
pub struct TlsFlags {
    /// Certificates in PEM of those who vouch for the server [default: those of the system]
    #[arg(long, env = "CLIPD_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Certificate of this client in PEM, for servers that ask for one
    #[arg(
        long = "tls-client-cert",
        env = "CLIPD_TLS_CLIENT_CERT",
        value_name = "FILE",
        requires = "tls_client_key"
    )]
    pub tls_client_cert: Option<PathBuf>,
    /// Its private key
    #[arg(
        long = "tls-client-key",
        env = "CLIPD_TLS_CLIENT_KEY",
        value_name = "FILE",
        requires = "tls_client_cert"
    )]
    pub tls_client_key: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub struct ClassifyFlags {
    /// Pictures (JPEG, PNG, WebP, GIF, BMP or TIFF); - is standard input
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// Labels, with commas between them
    #[arg(long, value_delimiter = ',', required_unless_present_any = ["label_file", "classifier"])]
    pub labels: Vec<String>,
    /// File with a label on each line, after those of --labels
    #[arg(long, value_name = "FILE")]
    pub label_file: Option<PathBuf>,
    /// Sentence with {} where the label goes; may be repeated [default: a photo of a {}.]
    #[arg(long = "template", value_name = "TEMPLATE")]
    pub templates: Vec<String>,
    /// Name of a classifier of the server, instead of labels
    #[arg(long, value_name = "NAME", conflicts_with_all = ["labels", "label_file", "templates"])]
    pub classifier: Option<String>,
    /// Best labels to show of each image
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub top_k: u32,
    /// Print a JSON object for each image
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub server: ServerFlags,
}

#[derive(Clone, Debug, Args)]
pub struct EmbedFlags {
    /// Pictures, or directories of them (JPEG, PNG, WebP, GIF, BMP or TIFF); - is one picture on standard input
    #[arg(value_name = "IMAGE|DIR", required_unless_present = "texts")]
    pub images: Vec<PathBuf>,
    /// A text; may be repeated. Texts come after the pictures
    #[arg(long = "text", value_name = "TEXT")]
    pub texts: Vec<String>,
    /// Where embeddings go: FILE.npy (float32, one row per input) with the names of the rows in
    /// FILE.paths.txt, or FILE.jsonl [default: the beginning of each on standard output]
    #[arg(long, value_name = "FILE", value_parser = out_file)]
    pub out: Option<OutFile>,
    /// Take subdirectories too; links to directories are not followed
    #[arg(long)]
    pub recursive: bool,
    /// Print a JSON object for each input, with the whole embedding
    #[arg(long, conflicts_with = "out")]
    pub json: bool,
    #[command(flatten)]
    pub server: ServerFlags,
}

/// A file whose name says its format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutFile {
    Npy(PathBuf),
    Jsonl(PathBuf),
}

/// `http://HOST:PORT` or `https://HOST:PORT`; a bare `HOST:PORT` is the first.
pub(crate) fn address(text: &str) -> Result<Uri, String> {
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = full.parse().map_err(|error| format!("{error}; write it like http://127.0.0.1:50051"))?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.port().is_some() => Ok(uri),
        Some("http" | "https") => Err("the port is missing; write it like http://127.0.0.1:50051".to_owned()),
        _ => Err("only http:// and https:// are spoken".to_owned()),
    }
}

fn out_file(text: &str) -> Result<OutFile, String> {
    let path = Path::new(text);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("npy") => Ok(OutFile::Npy(path.to_owned())),
        Some("jsonl") => Ok(OutFile::Jsonl(path.to_owned())),
        _ => Err("the name must end in .npy or .jsonl".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(address(text).ok().map(|uri| uri.to_string()).as_deref(), expected, "{text}");
        };
        check("http://127.0.0.1:50051", Some("http://127.0.0.1:50051/"));
        check("clipd.example:50051", Some("http://clipd.example:50051/"));
        check("[::1]:50051", Some("http://[::1]:50051/"));
        check("localhost", None);
        check("https://clipd.example:443", Some("https://clipd.example:443/"));
        check("ftp://clipd.example:443", None);
        check("http://", None);
    }

    #[test]
    fn the_name_of_a_file_says_its_format() {
        assert_eq!(out_file("a/x.npy"), Ok(OutFile::Npy("a/x.npy".into())));
        assert_eq!(out_file("x.jsonl"), Ok(OutFile::Jsonl("x.jsonl".into())));
        assert!(out_file("x.txt").is_err() && out_file("npy").is_err());
    }
}
