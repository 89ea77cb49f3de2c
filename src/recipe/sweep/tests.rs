use std::path::Path;

use super::*;

const RECIPE: &str = r#"
[dataset]
format = "shapes"
train = 8

[encoder]
model = "tiny.onnx"
resize = 64
mean = [0, 0, 0]
std = [1, 1, 1]

[[column]]
name = "grid"
tap = "c2"

[[column]]
name = "whole"
tap = "vector"

[decoder]
kind = "lstm"
columns = ["grid"]
"#;

fn parse(text: &str) -> Result<Sweep, SweepError> {
    let recipe = &mut |path: &Path| Ok((RECIPE.to_owned(), path.to_owned()));
    Sweep::parse(&format!("recipe = \"r.toml\"\n{text}"), "sweep.toml", recipe)
}

fn names(text: &str) -> Vec<String> {
    parse(text).unwrap_or_else(|error| panic!("{error}")).trials.into_iter().map(|trial| trial.name).collect()
}

fn fails(text: &str) -> String {
    parse(text).expect_err("a fault").to_string()
}

#[test]
fn every_combination_is_a_trial_in_the_files_order() {
    let text = r#"
seeds = [3, 1]
[grid]
decoder.hidden = [16, 24]
"train.learning_rate" = [1e-3]
[[variant]]
group = "columns"
name = "grid"
set = { "decoder.columns" = ["grid"] }
[[variant]]
group = "decoder"
name = "gru"
set.decoder.layers = 2
[[variant]]
group = "columns"
name = "both"
[variant.set]
decoder.columns = ["grid", "whole"]
"#;
    insta::assert_snapshot!(names(text).join("\n"), @r"
    grid-gru-hidden=16-learning_rate=0.001-s3
    grid-gru-hidden=16-learning_rate=0.001-s1
    grid-gru-hidden=24-learning_rate=0.001-s3
    grid-gru-hidden=24-learning_rate=0.001-s1
    both-gru-hidden=16-learning_rate=0.001-s3
    both-gru-hidden=16-learning_rate=0.001-s1
    both-gru-hidden=24-learning_rate=0.001-s3
    both-gru-hidden=24-learning_rate=0.001-s1
    ");
    let sweep = parse(text).unwrap();
    let last = sweep.trials.last().unwrap();
    assert_eq!((last.recipe.train.seed, last.seed), (1, Some(1)));
    assert_eq!(last.point, "both-gru-hidden=24-learning_rate=0.001");
    assert_eq!(last.recipe.decoder.as_ref().unwrap().columns, ["grid", "whole"]);
    // The recipe of a trial is what the same `--set`s make of the recipe.
    let sets: Vec<String> = last.sets.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(Recipe::parse(RECIPE, "r.toml", &sets).unwrap(), last.recipe);
}

#[test]
fn a_table_in_braces_takes_the_sections_place() {
    let of = |set: &str| {
        let sweep = parse(&format!("[[variant]]\nname = \"a\"\n{set}")).unwrap();
        sweep.trials[0].recipe.decoder.clone().unwrap()
    };
    let gpt2 = of("set.decoder = { kind = \"gpt2\", columns = [\"whole\"] }");
    assert_eq!(gpt2.columns, ["whole"]);
    assert_eq!(of("set.decoder.kind = \"gpt2\"").columns, ["grid"]);
    assert_eq!(of("[variant.set.decoder]\nkind = \"gpt2\"").columns, ["grid"]);
}

#[test]
fn keys_that_end_alike_are_told_apart_and_long_values_are_cut() {
    let text = "[grid]\ntrain.clip = [1]\ndecoder.dropout = [0.1]\n";
    assert_eq!(names(text), ["clip=1-dropout=0.1"]);
    let text = "[grid]\n\"column.0.name\" = [\"grid\"]\n\"column.1.name\" = [\"whole\"]\n";
    assert_eq!(names(text), ["column.0.name=grid-column.1.name=whole"]);
    let text =
        "[grid]\ndecoder.columns = [[\"grid\", \"whole\"], [\"grid\"]]\ndataset = [{ format = \"shapes\", train = 4 }]";
    let found = names(text);
    assert!(
        found[0].starts_with("columns=grid+whole-dataset=") && found[1].starts_with("columns=grid-dataset="),
        "{found:?}"
    );
    assert_eq!(names("seeds = [4]"), ["trial-s4"]);
    assert_eq!(names(""), ["trial"]);
}

#[test]
fn what_is_drawn_depends_on_seed_number_and_key_alone() {
    let drawn = |more: &str, n: u32| -> Vec<(String, String)> {
        let text = format!(
            "[random]\nn = {n}\nseed = 7\n[random.ranges]\ntrain.learning_rate = {{ from = 1e-4, to = 1e-2, log = true }}\n\
             \"decoder.hidden\" = {{ from = 16, to = 64 }}\n{more}"
        );
        let sweep = parse(&text).unwrap_or_else(|error| panic!("{error}"));
        sweep.trials.into_iter().flat_map(|trial| trial.sets).filter(|(key, _)| key != "decoder.dropout").collect()
    };
    let (few, many) = (drawn("", 3), drawn("[random.choices]\ndecoder.dropout = [0.1, 0.2]\n", 20));
    assert_eq!(few[..], many[..few.len()]);
    let number = |value: &String| value.parse::<f64>().unwrap();
    let rates: Vec<f64> = many.iter().filter(|(key, _)| key == "train.learning_rate").map(|(_, v)| number(v)).collect();
    assert_eq!(rates.len(), 20);
    assert!(rates.iter().all(|rate| (1e-4..=1e-2).contains(rate)), "{rates:?}");
    assert!(rates.iter().any(|rate| *rate < 1e-3) && rates.iter().any(|rate| *rate > 1e-3), "{rates:?}");
    let hidden = many.iter().filter(|(key, _)| key == "decoder.hidden");
    assert!(hidden.map(|(_, value)| value.parse::<i64>().unwrap()).all(|hidden| (16..=64).contains(&hidden)));
}

#[test]
fn all_faults_are_shown_where_they_stand() {
    let text = r#"
seeds = [1, 2, 1]
[grid]
decoder.hiden = [16, 24]
train.batch = 5
[halving]
eta = 1
rungs = [20, 10]
[[variant]]
name = "a b"
"#;
    insta::assert_snapshot!(fails(text), @r##"
    the sweep file `sweep.toml` has 5 faults
    the seed `1` stands here twice
     --> sweep.toml:3:16
      |
    3 | seeds = [1, 2, 1]
      |                ^
    `train.batch` needs a list of values
     --> sweep.toml:6:15
      |
    6 | train.batch = 5
      |               ^ write a list: train.batch = [..]
    `1` does not work: it must be at least 2
     --> sweep.toml:8:7
      |
    8 | eta = 1
      |       ^ one of `eta` points goes on
    `[20, 10]` does not work: rungs are steps, each more than the one before
     --> sweep.toml:9:9
      |
    9 | rungs = [20, 10]
      |         ^^^^^^^^ write for example rungs = [200, 600]
    `a b` can't be a part of a folder's name
      --> sweep.toml:11:8
       |
    11 | name = "a b"
       |        ^^^^^ begin with a letter or digit, and use `.`, `_`, `-`, `+` and `=` beside them
    "##);
    let text = r#"
[grid]
decoder.hiden = [16, 24]
train.batch = [0, 5]
decoder.columns = [["grit"], ["grid"]]
column.7.name = ["x"]
"#;
    insta::assert_snapshot!(fails(text), @r##"
    the sweep file `sweep.toml` has 5 faults
    unknown key `hiden` in `decoder`
     --> sweep.toml:4:18
      |
    4 | decoder.hiden = [16, 24]
      |                  ^^ did you mean `hidden`?
    unknown key `hiden` in `decoder`
     --> sweep.toml:4:22
      |
    4 | decoder.hiden = [16, 24]
      |                      ^^ did you mean `hidden`?
    `0` does not work: it must be at least 1
     --> sweep.toml:5:16
      |
    5 | train.batch = [0, 5]
      |                ^
    no [[column]] is called `grit`
     --> sweep.toml:6:20
      |
    6 | decoder.columns = [["grit"], ["grid"]]
      |                    ^^^^^^^^ did you mean `grid`?
    the recipe has no `column.7`: the last one is `column.1`
     --> sweep.toml:7:18
      |
    7 | column.7.name = ["x"]
      |                  ^^^
    "##);
    insta::assert_snapshot!(fails("seed = [1]\n[grids]\nx = 1\n[random]\nn = 3\n"), @r##"
    the sweep file `sweep.toml` has 3 faults
    unknown key `seed`
     --> sweep.toml:2:1
      |
    2 | seed = [1]
      | ^^^^ did you mean `seeds`?
    unknown key `grids`
     --> sweep.toml:3:2
      |
    3 | [grids]
      |  ^^^^^ did you mean `grid`?
    [random] draws nothing
     --> sweep.toml:5:1
      |
    5 | [random]
      | ^^^^^^^^ give [random.ranges] with { from, to }, or [random.choices] with lists
    "##);
    insta::assert_snapshot!(fails("[random]\nn = 3\n[random.ranges]\ntrain.clip = { from = 2, to = 1 }\ntrain.ema = 0.5\n"), @r##"
    the sweep file `sweep.toml` has 2 faults
    the range of `train.clip` does not work: `from` must be below `to`
     --> sweep.toml:5:14
      |
    5 | train.clip = { from = 2, to = 1 }
      |              ^^^^^^^^^^^^^^^^^^^^ write { from = 1e-4, to = 1e-2, log = true }
    `train.ema` needs a range
     --> sweep.toml:6:13
      |
    6 | train.ema = 0.5
      |             ^^^ write { from = 1e-4, to = 1e-2, log = true }
    "##);
}

#[test]
fn a_fault_of_the_recipe_is_the_recipes() {
    let broken = &mut |path: &Path| Ok((RECIPE.replace("tap = \"c2\"", "tip = \"c2\""), path.to_owned()));
    let error = Sweep::parse("recipe = \"r.toml\"", "sweep.toml", broken).expect_err("a fault");
    assert!(error.to_string().starts_with("the recipe `r.toml` has"), "{error}");
    let error = Sweep::load(Path::new("nowhere/sweep.toml"), &[]).expect_err("no file");
    insta::assert_snapshot!(error, @r##"
    the sweep file `nowhere/sweep.toml` can't be read
    hint: check the path; pipelines/study-flickr8k.toml is one
    "##);
}

#[test]
fn the_study_has_its_trials() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let mut seen = 0;
    for entry in fs::read_dir(folder).expect("pipelines/") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).unwrap_or_default();
        if path.extension().is_some_and(|end| end == "toml") && text.lines().any(|line| line.starts_with("recipe = ")) {
            let sweep = Sweep::load(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            assert!(text.contains(&format!("icecap sweep pipelines/{name}")), "{name} is not headed by its command");
            assert!(name != "study-flickr8k.toml" || sweep.trials.len() == 6 * 3 * 3);
            seen += 1;
        }
    }
    assert!(seen >= 1);
}
