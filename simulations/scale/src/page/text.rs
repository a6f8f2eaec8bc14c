//! Numbers and tables as text.

pub fn table(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut lines = vec![
        heads.iter().map(|head| (*head).to_owned()).collect(),
        heads.iter().map(|head| if head.is_empty() { ":--" } else { "--:" }.to_owned()).collect(),
    ];
    lines.extend(rows);
    lines.iter().map(|row: &Vec<String>| format!("| {} |\n", row.join(" | "))).collect()
}

pub fn ratio(number: f64) -> String {
    format!("{number:.2}")
}

pub fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_have_commas() {
        assert_eq!([7, 999, 1_000, 1_234_567].map(thousands), ["7", "999", "1,000", "1,234,567"]);
    }
}
