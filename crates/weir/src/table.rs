//! Rows of words and numbers, for people and for spreadsheets.

use crate::terminal::{Ink, Paint};

pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    foot: Option<Vec<String>>,
    /// So many columns are words, and stand at the left; the others are numbers, and stand at the right.
    words: usize,
}

impl Table {
    pub fn new(head: impl IntoIterator<Item = String>, words: usize) -> Table {
        Table { head: head.into_iter().collect(), rows: Vec::new(), foot: None, words }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// A last row of sums.
    pub fn foot(&mut self, cells: impl IntoIterator<Item = String>) {
        self.foot = Some(cells.into_iter().collect());
    }

    pub fn text(&self, paint: Paint) -> String {
        let lines = || std::iter::once(&self.head).chain(&self.rows).chain(&self.foot);
        let width = |column: usize| lines().map(|line| line[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut text = String::new();
        for (at, line) in lines().enumerate() {
            let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
                if column < self.words { format!("{cell:width$}") } else { format!("{cell:>width$}") }
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            let line = line.trim_end();
            text += &if at == 0 { paint.paint(Ink::Heading, line) } else { line.to_owned() };
            text.push('\n');
        }
        text
    }

    /// As RFC 4180 has it; without the sums, which a spreadsheet would sum again.
    pub fn csv(&self) -> String {
        let quoted = |cell: &String| {
            // A cell that begins so would be a formula.
            let cell = if cell.starts_with(['=', '+', '@']) { format!("'{cell}") } else { cell.clone() };
            if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
        };
        let line = |cells: &Vec<String>| cells.iter().map(quoted).collect::<Vec<_>>().join(",") + "\r\n";
        std::iter::once(&self.head).chain(&self.rows).map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_at_the_right_and_odd_cells_are_quoted() {
        let mut table = Table::new(["name", "cost"].map(str::to_owned), 1);
        table.row(["a,b", "1.5"].map(str::to_owned));
        table.row(["=cmd", "10"].map(str::to_owned));
        table.foot(["total", "11.5"].map(str::to_owned));
        assert_eq!(table.text(Paint(false)), "name   cost\na,b     1.5\n=cmd     10\ntotal  11.5\n");
        assert_eq!(table.csv(), "name,cost\r\n\"a,b\",1.5\r\n'=cmd,10\r\n");
    }
}
