//! TLS of both APIs: server and client certificates, what changes while the server runs, and who speaks otherwise.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{self, RootCertStore};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::support::post::send_over;
use crate::support::scrape::Scrape;
use crate::support::*;

/// One that vouches for others.
struct Ca(CertifiedIssuer<'static, KeyPair>);

struct Pair {
    certificate: String,
    key: String,
}

impl Ca {
    fn new() -> Ca {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ca(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self) -> Pair {
        self.issue_to("localhost")
    }

    fn issue_to(&self, name: &str) -> Pair {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// The files of a server.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new(pair: &Pair) -> Files {
        let files = Files { folder: tempfile::tempdir().unwrap() };
        files.put(pair);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, pair: &Pair) {
        std::fs::write(self.path("key.pem"), &pair.key).unwrap();
        std::fs::write(self.path("certificate.pem"), &pair.certificate).unwrap();
    }

    fn flags(&self) -> Vec<String> {
        let flag = |name: &str, file: &str| format!("--{name}={}", self.path(file).display());
        vec![flag("tls-cert", "certificate.pem"), flag("tls-key", "key.pem")]
    }
}

async fn start(flags: &[String]) -> (Server, clipd::engine::synthetic::Gate) {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Server::gated(&flags).await
}

fn endpoint(server: &Server, ca: &Ca, identity: Option<&Pair>) -> Endpoint {
    let mut tls =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca.pem())).domain_name("localhost");
    if let Some(Pair { certificate, key }) = identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    let address = format!("https://{}", server.running.grpc_address);
    Channel::from_shared(address).unwrap().tls_config(tls).unwrap()
}

async fn embeds(server: &Server, ca: &Ca, identity: Option<&Pair>) -> bool {
    let Ok(channel) = endpoint(server, ca, identity).connect().await else { return false };
    Client::new(channel).embed(one_image(1)).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_trusts_the_certificate_is_served_and_who_speaks_otherwise_is_not() {
    let (ca, other) = (Ca::new(), Ca::new());
    let files = Files::new(&ca.issue());
    let (server, _gate) = start(&files.flags()).await;
    assert!(embeds(&server, &ca, None).await);
    assert!(!embeds(&server, &other, None).await, "not whom it trusts");
    // In the clear, to either port: an end, and no answer.
    assert!(connect(&server.running).embed(one_image(1)).await.is_err());
    let mut plain = TcpStream::connect(server.running.http_address.unwrap()).await.unwrap();
    plain.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    // And the other way round.
    let (clear, _gate) = Server::gated(&[]).await;
    assert!(!embeds(&clear, &ca, None).await);
    embeds(&server, &ca, None).await;
    let scrape = Scrape::of(server.running.metrics_address).await;
    let broken = scrape.sum("clip_connections_ended_total{port=\"grpc\",reason=\"handshake\"}");
    assert!(broken >= 2.0, "{broken}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_may_need_a_certificate_too() {
    let (ca, clients, strangers) = (Ca::new(), Ca::new(), Ca::new());
    let files = Files::new(&ca.issue());
    std::fs::write(files.path("clients.pem"), clients.pem()).unwrap();
    let mut flags = files.flags();
    flags.push(format!("--tls-client-ca={}", files.path("clients.pem").display()));
    let (server, _gate) = start(&flags).await;
    assert!(embeds(&server, &ca, Some(&clients.issue())).await);
    assert!(!embeds(&server, &ca, Some(&strangers.issue())).await);
    assert!(!embeds(&server, &ca, None).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_stands_for_a_key() {
    let (ca, clients) = (Ca::new(), Ca::new());
    let files = Files::new(&ca.issue());
    std::fs::write(files.path("clients.pem"), clients.pem()).unwrap();
    let keys = "[[keys]]\nname = \"search\"\ncertificate = \"search.example.org\"\n";
    std::fs::write(files.path("keys.toml"), keys).unwrap();
    let mut flags = files.flags();
    flags.push(format!("--tls-client-ca={}", files.path("clients.pem").display()));
    flags.push(format!("--api-keys={}", files.path("keys.toml").display()));
    let (server, _gate) = start(&flags).await;
    assert!(embeds(&server, &ca, Some(&clients.issue_to("search.example.org"))).await);
    assert!(!embeds(&server, &ca, Some(&clients.issue_to("search"))).await, "the name of the key is none");
    let scrape = Scrape::quiet(server.running.metrics_address).await;
    assert_eq!(scrape.value("clip_key_requests_total{key=\"search\",code=\"OK\"}"), 1.0);
    assert_eq!(scrape.value("clip_key_requests_total{key=\"?\",code=\"UNAUTHENTICATED\"}"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_port_may_speak_tls_too() {
    let ca = Ca::new();
    let files = Files::new(&ca.issue());
    std::fs::write(files.path("clients.pem"), ca.pem()).unwrap();
    let mut flags = files.flags();
    flags.push("--metrics-tls".to_owned());
    // Which nobody needs there: Kubernetes' probes have no certificate.
    flags.push(format!("--tls-client-ca={}", files.path("clients.pem").display()));
    let (server, _gate) = start(&flags).await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let client = client.unwrap().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(server.running.metrics_address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
    let request = http::Request::get("/metrics").header("host", "localhost").body(Default::default());
    let answer = send_over(stream, request.unwrap()).await;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let expiry =
        text.lines().find_map(|line| line.strip_prefix("clip_certificate_expiry_timestamp_seconds "));
    // rcgen's certificates end with the year 4095.
    assert_eq!(expiry.unwrap(), "67090118400", "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_change_under_load_and_no_connection_is_dropped() {
    let (old, new) = (Ca::new(), Ca::new());
    let files = Files::new(&old.issue());
    let (server, _gate) = start(&files.flags()).await;
    let mut before = Client::new(endpoint(&server, &old, None).connect().await.unwrap());
    before.embed(one_image(1)).await.unwrap();

    // A pair that does not belong together changes nothing, and shows.
    std::fs::write(files.path("certificate.pem"), new.issue().certificate).unwrap();
    let failures = "clip_reload_failures_total{files=\"tls\"}";
    while Scrape::of(server.running.metrics_address).await.value(failures) == 0.0 {
        before.embed(one_image(1)).await.unwrap();
    }
    assert!(embeds(&server, &old, None).await);

    files.put(&new.issue());
    while !embeds(&server, &new, None).await {
        before.embed(one_image(1)).await.unwrap();
    }
    assert!(!embeds(&server, &old, None).await);
    before.embed(one_image(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_handshakes_hold_up_nobody() {
    let ca = Ca::new();
    let files = Files::new(&ca.issue());
    let (server, _gate) = start(&[files.flags(), vec!["--max-connections=8".to_owned()]].concat()).await;
    let mut half = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(server.running.grpc_address).await.unwrap();
        // The beginning of a ClientHello.
        let _ = stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await;
        half.push(stream);
    }
    assert!(embeds(&server, &ca, None).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_its_certificate_does_not_start() {
    let files = Files::new(&Ca::new().issue());
    let check = |says: &str| {
        let config = config(&files.flags().iter().map(String::as_str).collect::<Vec<_>>());
        let served = synthetic(vec![gated_engine(clipd::engine::synthetic::Gate::open())]);
        let ports = clipd::app::ports::Ports::open(&config).unwrap();
        let error = clipd::app::start(&config, ports, served).err().unwrap().to_string();
        assert!(error.starts_with("TLS: ") && error.contains(says), "{error}");
    };
    files.put(&Pair { key: "nonsense".to_owned(), ..Ca::new().issue() });
    check("the key");
    files.put(&Pair { certificate: String::new(), ..Ca::new().issue() });
    check("the certificate: there is none");
    std::fs::remove_file(files.path("key.pem")).unwrap();
    check("key.pem");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_speaks_tls() {
    let ca = Ca::new();
    let files = Files::new(&ca.issue());
    std::fs::write(files.path("ca.pem"), ca.pem()).unwrap();
    let (server, _gate) = start(&files.flags()).await;
    let port = server.running.grpc_address.port();
    let run = |ca: Option<&Path>| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_clipd"));
        command.args(["embed", "--text", "a", "--addr", &format!("https://localhost:{port}")]);
        if let Some(ca) = ca {
            command.arg("--tls-ca").arg(ca);
        }
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    let output = run(Some(&files.path("ca.pem"))).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!run(None).await.unwrap().status.success(), "nobody that the system trusts");
}
