//! The word that was probably meant.

/// The known word that is closest to a written one; `None` where none is close. `known` is in lower case.
pub fn closest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase();
    let distances = known.into_iter().map(|word| (strsim::damerau_levenshtein(&written, word), word));
    distances.filter(|(distance, word)| *distance <= 1 + word.len() / 4).min().map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_mended_and_another_word_is_not() {
        let known = ["query", "query_range", "series"];
        for (written, word) in
            [("querry", Some("query")), ("Queryrange", Some("query_range")), ("metrics", None)]
        {
            assert_eq!(closest(written, known), word, "{written}");
        }
    }
}
