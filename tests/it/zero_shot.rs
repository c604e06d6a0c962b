//! Accuracy through the API: the embedded model recognises emoji, of a vendor it was trained on and of one
//! whose drawings it has never seen. Floors are the measured values minus two points.

use clipd::grpc::proto::ClassifyRequest;

use crate::support::*;

/// The templates of the model's own accuracy table.
const TEMPLATES: [&str; 4] = ["an emoji of {}", "a picture of a {}", "{}", "a drawing of {}"];

struct Accuracy {
    /// Percent.
    top_1: f32,
    /// Percent.
    top_5: f32,
}

/// Classifies the committed sample of a vendor against all 1,644 names.
async fn accuracy(vendor: &str) -> Accuracy {
    let mut server = Server::start(&[]).await;
    let labels = String::from_utf8(fixture("zeroshot/labels.txt")).unwrap();
    let labels: Vec<bytes::Bytes> = labels.lines().map(|label| label.to_owned().into()).collect();
    let samples = String::from_utf8(fixture("zeroshot/samples.tsv")).unwrap();
    let samples: Vec<(String, u32)> = samples
        .lines()
        .filter(|line| !line.starts_with('#') && !line.starts_with("hexcode"))
        .map(|line| {
            let mut columns = line.split('\t');
            (columns.next().unwrap().to_owned(), columns.next().unwrap().parse().unwrap())
        })
        .collect();
    assert_eq!(samples.len(), 120);

    let (mut top_1, mut top_5) = (0, 0);
    for part in samples.chunks(60) {
        let request = ClassifyRequest {
            images: part
                .iter()
                .map(|(name, _)| image(fixture(&format!("zeroshot/{vendor}/{name}.png"))))
                .collect(),
            labels: labels.clone(),
            templates: TEMPLATES.map(str::to_owned).to_vec(),
            top_k: 5,
            ..ClassifyRequest::default()
        };
        let response = server.client.classify(with_timeout(request, std::time::Duration::from_secs(300)));
        for ((_, truth), result) in part.iter().zip(response.await.unwrap().into_inner().results) {
            let rank = predictions(&result).iter().position(|prediction| prediction.index == *truth);
            top_1 += usize::from(rank == Some(0));
            top_5 += usize::from(rank.is_some());
        }
    }
    let percent = |count: usize| 100.0 * count as f32 / samples.len() as f32;
    let accuracy = Accuracy { top_1: percent(top_1), top_5: percent(top_5) };
    println!("{vendor}: top-1 {:.1} %, top-5 {:.1} %", accuracy.top_1, accuracy.top_5);
    accuracy
}

#[tokio::test(flavor = "multi_thread")]
async fn noto_which_it_was_trained_on() {
    let accuracy = accuracy("noto").await;
    assert!(accuracy.top_1 >= 97.2, "{}", accuracy.top_1);
    assert!(accuracy.top_5 >= 98.0, "{}", accuracy.top_5);
}

#[tokio::test(flavor = "multi_thread")]
async fn openmoji_which_it_has_never_seen() {
    let accuracy = accuracy("openmoji").await;
    assert!(accuracy.top_1 >= 37.2, "{}", accuracy.top_1);
    assert!(accuracy.top_5 >= 65.5, "{}", accuracy.top_5);
}
