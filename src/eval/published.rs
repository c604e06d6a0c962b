//! What figures should be: as `--expect` says, or as others published them.

use std::collections::BTreeSet;

use super::Error;
use crate::config::eval::Expectation;

/// Says where each figure is from, and under which licence.
const TABLE: &str = include_str!("published.tsv");

#[derive(Clone, Copy, Debug)]
struct Row {
    model: &'static str,
    data: &'static str,
    figure: &'static str,
    value: f64,
}

fn rows() -> impl Iterator<Item = Row> {
    TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut cells = line.split('\t');
        let mut cell = || cells.next();
        Some(Row { model: cell()?, data: cell()?, figure: cell()?, value: cell()?.parse().ok()? })
    })
}

/// Figures of a data set and a model, and what is expected of them; what is given by its value goes first. Names of the
/// hub count without the organisation.
pub(super) fn expected(given: &[Expectation], data: &str, model: &str) -> Result<Vec<(String, f64)>, Error> {
    let mut expected: Vec<(String, f64)> = given
        .iter()
        .filter_map(|one| match one {
            Expectation::Figure(name, value) => Some((name.clone(), *value)),
            Expectation::Published => None,
        })
        .collect();
    if given.contains(&Expectation::Published) {
        let found = published(data, model)?;
        expected.extend(found.into_iter().map(|row| (row.figure.to_owned(), row.value)));
    }
    Ok(expected)
}

fn published(data: &str, model: &str) -> Result<Vec<Row>, Error> {
    let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    let of_model = narrowed(rows().collect(), "the model", &last(model), |row| row.model)?;
    narrowed(of_model, "the data set", &last(data), |row| row.data)
}

/// Rows with this name; without one it is an error that has the names there are.
fn narrowed(
    mut rows: Vec<Row>,
    what: &str,
    wanted: &str,
    name: fn(&Row) -> &'static str,
) -> Result<Vec<Row>, Error> {
    let known: BTreeSet<&str> = rows.iter().map(name).collect();
    rows.retain(|row| name(row) == wanted);
    if rows.is_empty() {
        let known = known.into_iter().collect::<Vec<_>>().join(", ");
        return Err(Error::Other(format!(
            "--expect published: of {what} {wanted:?} no figures are known here, only of {known}"
        )));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: &str = "CLIP-ViT-B-16-laion2B-s34B-b88K";

    #[test]
    fn every_row_is_a_figure_that_a_run_has() {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(
            (
                rows().count(),
                rows().map(|row| (row.model, row.data, row.figure)).collect::<BTreeSet<_>>().len()
            ),
            (lines, lines)
        );
        for Row { figure, value, data, .. } in rows() {
            assert!((0.0..1.0).contains(&value) && data.starts_with("wds_"), "{data} {figure} {value}");
            let of_captions =
                ["image", "text"].iter().any(|way| figure.starts_with(&format!("{way}_retrieval_recall@")));
            assert!(of_captions || ["acc1", "mean_per_class_recall"].contains(&figure), "{figure}");
        }
    }

    #[test]
    fn what_is_given_goes_before_what_is_published() {
        let given = [Expectation::Published, Expectation::Figure("acc1".to_owned(), 0.5)];
        let expected = expected(&given, "clip-benchmark/wds_imagenet1k", &format!("laion/{MODEL}")).unwrap();
        assert_eq!(expected, [("acc1".to_owned(), 0.5), ("acc1".to_owned(), 0.7023)]);
    }

    #[test]
    fn what_is_unknown_is_told_with_what_is_known() {
        let reason = |data: &str, model: &str| {
            expected(&[Expectation::Published], data, model).unwrap_err().to_string()
        };
        let unknown = reason("wds_vtab-svhn", MODEL);
        assert!(
            unknown.contains("the data set \"wds_vtab-svhn\"") && unknown.contains("wds_imagenet1k, "),
            "{unknown}"
        );
        let unknown = reason("wds_imagenet1k", "emoji-clip");
        assert!(unknown.contains("the model \"emoji-clip\"") && unknown.ends_with(MODEL), "{unknown}");
        assert!(expected(&[], "nothing", "nothing").unwrap().is_empty());
    }
}
