#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use super::*;

type Rendered = fn(&Release<'_>) -> Objects;

macro_rules! chart {
    ($name:literal, $($file:literal),*) => {
        (
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fluxcd/charts/", $name, "/values.yaml")),
            [$(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fluxcd/charts/", $name, "/templates/", $file))),*],
        )
    };
}

fn render(name: &str, values: &Value, render: Rendered) -> Vec<Value> {
    let release = Release {
        name,
        namespace: "shop",
        chart: name,
        version: "0.2.0",
        app_version: "3.22.17",
        values,
    };
    render(&release).unwrap()
}

/// All keys and scalars of a value.
fn words(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                into.insert(key.clone());
                words(value, into);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| words(item, into)),
        Value::String(text) => {
            into.insert(text.clone());
        }
        Value::Null => {}
        other => {
            into.insert(other.to_string());
        }
    }
}

/// Each line that stands in a template without a variable is in what we render, and each value that a template reads
/// changes what we render.
fn check(name: &str, values: &str, templates: &[&str], rendered: Rendered) {
    let mut values: Value = serde_saphyr::from_str(values).unwrap();
    // What the chart wants to be given.
    values["image"]["tag"] = "1.2".into();
    values["image"]["repository"] = "registry.example.org/shop".into();
    for (field, value) in [
        ("nodeSelector", json!({"node": "yes"})),
        ("tolerations", json!([{"key": "taint"}])),
    ] {
        values[field] = value;
    }
    let before = render(name, &values, rendered);
    let mut known = BTreeSet::new();
    before.iter().for_each(|object| words(object, &mut known));
    // Resources are left out when they are empty.
    known.insert("resources".to_owned());

    let text = templates.concat();
    for line in text.lines() {
        let line = line.trim().trim_start_matches("- ");
        if line.contains("{{") || line.starts_with('#') || line.is_empty() {
            continue;
        }
        let mut wanted = BTreeSet::new();
        words(&serde_saphyr::from_str(line).unwrap(), &mut wanted);
        for word in wanted {
            assert!(
                known.contains(&word),
                "{name}: `{word}` of `{line}` is not rendered"
            );
        }
    }

    let reads: BTreeSet<_> = text
        .split(".Values.")
        .skip(1)
        .map(|tail| {
            let end = tail.find(|c: char| c != '.' && !c.is_ascii_alphanumeric());
            format!("/{}", tail[..end.unwrap_or(tail.len())].replace('.', "/"))
        })
        .collect();
    assert!(reads.len() > 8, "{reads:?}");
    for pointer in reads {
        let mut changed = values.clone();
        let value = changed.pointer_mut(&pointer);
        let value = value.unwrap_or_else(|| panic!("{name}: {pointer} has no default"));
        *value = match &value {
            Value::Bool(on) => (!*on).into(),
            Value::Number(_) => 77.into(),
            Value::String(_) => "another".into(),
            Value::Array(_) => json!([{"another": "one"}]),
            _ => json!({"another": "one"}),
        };
        let after = render(name, &changed, rendered);
        assert_ne!(before, after, "{name}: {pointer} changes nothing");
    }
}

#[test]
fn saleor_is_rendered_as_its_templates_say() {
    let (values, templates) = chart!(
        "slr",
        "_helpers.tpl",
        "api.yaml",
        "beat.yaml",
        "migration.yaml",
        "service.yaml",
        "worker.yaml"
    );
    check("slr", values, &templates, slr);
}

#[test]
fn the_storefront_is_rendered_as_its_templates_say() {
    let (values, templates) = chart!("dsf", "_helpers.tpl", "service.yaml", "storefront.yaml");
    check("dsf", values, &templates, dsf);
}

#[test]
fn a_frozen_application_has_only_its_service() {
    let off = json!({"enabled": false});
    let values = json!({"migrationjob": off, "api": off, "beat": off, "worker": off});
    let all = render("slr", &values, slr);
    let kinds: Vec<_> = all.iter().map(|object| &object["kind"]).collect();
    assert_eq!(kinds, ["Service"]);
    let all = render("dsf", &json!({"storefront": off}), dsf);
    assert_eq!(all.len(), 1);
}

#[test]
fn a_storefront_without_a_tag_is_refused_and_a_tag_without_quotes_is_a_number() {
    let release = |values: &Value| {
        dsf(&Release {
            name: "dsf",
            namespace: "dsf",
            chart: "dsf",
            version: "0.2.0",
            app_version: "",
            values,
        })
    };
    let on = json!({"enabled": true});
    let error = release(&json!({"storefront": on, "image": {"repository": "r", "tag": ""}}));
    assert!(error.unwrap_err().contains("image.tag is wanted"));
    let values: Value = serde_saphyr::from_str(
        "{storefront: {enabled: true}, image: {repository: r, tag: 123.10}}",
    )
    .unwrap();
    let all = release(&values).unwrap();
    let image = &all[0]["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, "r:123.1");
}
