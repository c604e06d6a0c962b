//! Numbers and tables as text, for reports.

use super::ceiling::Spread;

/// Columns as wide as their widest cell; the first is on the left, numbers are on the right.
pub(crate) fn titled(title: &str, rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        format!("\n  {}", cells.collect::<Vec<_>>().join("  "))
    });
    format!("{title}{}", lines.collect::<String>())
}

pub(super) fn range(spread: Spread, factor: f64) -> String {
    let Spread { median, min, max } = spread;
    format!("{} ({}-{})", number(median * factor), number(min * factor), number(max * factor))
}

/// Three digits, or all before the point.
pub(super) fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// What is not known.
pub(super) fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let check = |value: f64, expected: &str| assert_eq!(number(value), expected);
        check(0.0, "0.00");
        check(1.234, "1.23");
        check(12.34, "12.3");
        check(1234.5, "1234");
    }

    #[test]
    fn columns_line_up() {
        let rows = [["load", "p50"], ["closed x 1", "2"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(titled("TITLE", &rows), "TITLE\n  load        p50\n  closed x 1    2");
    }
}
