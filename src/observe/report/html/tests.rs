use super::super::tests::{EXAMPLES, example};
use super::*;

const NOW: u64 = 1_795_330_000_000;

#[test]
fn the_policy_names_the_style_sheet_that_the_page_has() {
    let mut digest = [0; 32];
    digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, STYLE.as_bytes()).as_ref());
    let encoded = crate::gate::token::KeyAuthorizationDigest::from(digest).to_base64url();
    assert_eq!(
        STYLE_DIGEST
            .trim_end_matches('=')
            .replace('+', "-")
            .replace('/', "_"),
        encoded
    );
}

/// What of a page is markup: names of elements, by a reader that knows no more than that.
fn elements(page: &str) -> Vec<String> {
    let (_, body) = page.split_once("</style>").unwrap();
    let tags = body.split('<').skip(1);
    tags.map(|tag| {
        let name = tag.trim_start_matches('/');
        name.chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect()
    })
    .collect()
}

#[test]
fn a_page_has_what_the_text_has_and_nothing_that_acts() {
    for (name, _) in EXAMPLES {
        let record = example(name);
        let page = page(std::slice::from_ref(&record), None, NOW);
        let known = [
            "head",
            "body",
            "main",
            "header",
            "p",
            "h1",
            "h2",
            "h3",
            "dl",
            "dt",
            "dd",
            "ol",
            "ul",
            "li",
            "figure",
            "figcaption",
            "svg",
            "title",
            "line",
            "text",
            "tspan",
            "circle",
            "rect",
            "path",
            "table",
            "caption",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "span",
            "code",
            "footer",
            "html",
        ];
        for element in elements(&page) {
            assert!(known.contains(&element.as_str()), "{name}: {element}");
        }
        assert!(page.contains("default-src 'none'"));
        for source in record
            .sources
            .iter()
            .filter(|source| Fate::of(source) != Fate::Stray)
        {
            assert!(
                page.contains(&format!("<code>{}</code>", address(source))),
                "{name}"
            );
        }
        assert!(page.contains(&html(&verdict::headline(&record))));
    }
}

#[test]
fn whatever_stands_in_a_record_is_text() {
    let nasty = "<script>document.title='x'</script>\u{1b}[2J\u{202e}\"' onload=x\r\n&#x3c;`<b>`";
    let record = super::super::tests::hostile(nasty);
    let calm = super::super::tests::hostile("calm");
    let both = [record, calm].map(|record| page(&[record], None, NOW));
    assert_eq!(
        elements(&both[0])
            .iter()
            .filter(|one| *one != "code")
            .collect::<Vec<_>>(),
        elements(&both[1])
            .iter()
            .filter(|one| *one != "code")
            .collect::<Vec<_>>()
    );
    assert!(
        !both[0].contains("<script")
            && !both[0].contains("\u{1b}")
            && !both[0].contains('\u{202e}')
    );
}

#[test]
fn a_page_of_many_windows_unfolds_each() {
    let records: Vec<Record> = ["quiet", "six"].map(example).into();
    let summary = Summary::of(&records, u64::MAX, NOW, &[]);
    let page = page(&records, Some(&summary), NOW);
    assert_eq!(page.matches("<details>").count(), 2);
    assert!(page.find("window 17").unwrap() < page.find("window 19").unwrap());
}
