//! Results as a person reads them: aligned tables for the terminal, and the page of a comparison.
//!
//! Knows no command and no module; takes words, gives words.

pub mod page;

/// An aligned table: the first column to the left, the others to the right.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column titles.
    #[must_use]
    pub fn new(titles: &[&str]) -> Self {
        Self { rows: vec![titles.iter().map(ToString::to_string).collect()] }
    }

    /// Adds a row; cells that are absent stay empty.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    fn width(&self, column: usize) -> usize {
        self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(|column| self.width(column)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, width) in widths.iter().enumerate() {
                let cell = row.get(column).map_or("", String::as_str);
                if column == 0 {
                    line += &format!("{cell:<width$}");
                } else {
                    line += &format!("  {cell:>width$}");
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// `bytes` with a unit a person reads: `878 MB`, `1.4 GB` (powers of ten).
#[must_use]
pub fn bytes(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 || value >= 9.95 {
        format!("{value:.0} {}", units[unit])
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

/// A count with a unit a person reads: `12.3 M`, `12 K`, `640`.
#[must_use]
pub fn count(count: u64) -> String {
    match count {
        0..1000 => count.to_string(),
        // What rounds to 1000 K is a million.
        1000..999_500 => format!("{:.0} K", count as f64 / 1e3),
        _ => format!("{:.1} M", count as f64 / 1e6),
    }
}

/// Seconds as `41 s`, `3 min 20 s` or `2 h 5 min`.
#[must_use]
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        _ if seconds < 9.95 => format!("{seconds:.1} s"),
        0..120 => format!("{whole} s"),
        120..7200 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A shape as `[7,7,2048]`.
#[must_use]
pub fn shape(dimensions: &[usize]) -> String {
    let dimensions: Vec<String> = dimensions.iter().map(ToString::to_string).collect();
    format!("[{}]", dimensions.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned() {
        let mut table = Table::new(&["column", "shape", "bytes"]);
        table.row(vec!["grid7".into(), shape(&[49, 1280]), bytes(878_080_000)]);
        table.row(vec!["avgpool".into(), shape(&[1280]), bytes(1_400)]);
        insta::assert_snapshot!(table, @r"
        column       shape   bytes
        grid7    [49,1280]  878 MB
        avgpool     [1280]  1.4 kB
        ");
    }

    #[test]
    fn units_turn_over_where_a_person_expects() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(999_600), "1.0 MB");
        assert_eq!([0, 999, 1_000, 12_345, 999_499].map(count), ["0", "999", "1 K", "12 K", "999 K"]);
        assert_eq!([999_500, 12_345_678].map(count), ["1.0 M", "12.3 M"]);
        assert_eq!(duration(9.94), "9.9 s");
        assert_eq!(duration(119.6), "2 min 0 s");
        assert_eq!(duration(7_500.0), "2 h 5 min");
    }
}
