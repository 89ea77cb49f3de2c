mod faults;

use super::*;

const GOOD: &str = r#"
[dataset]
format = "shapes"
train = 8

[encoder]
model = "encoders/any.onnx"
resize = 64
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]

[[column]]
name = "grid"
tap = "layer2"
pool = "4x4"

[decoder]
kind = "lstm"
columns = ["grid"]
hidden = 64
"#;

fn fails(text: &str) -> String {
    Recipe::parse(text, "recipe.toml", &[]).expect_err("a faulty recipe").to_string()
}

#[test]
fn what_is_resolved_reads_back_as_the_same_recipe() {
    let recipe = Recipe::parse(GOOD, "recipe.toml", &[]).expect("a good recipe");
    let resolved = recipe.resolved();
    assert_eq!(Recipe::parse(&resolved, "resolved", &[]).expect("a good recipe"), recipe, "{resolved}");
    assert!(resolved.contains("learning_rate"), "defaults are written out: {resolved}");
}

#[test]
fn set_puts_values_in() {
    let sets = ["decoder.hidden=32", "train.seed=7", "column.0.pool=global"].map(str::to_owned);
    let recipe = Recipe::parse(GOOD, "recipe.toml", &sets[..2]).expect("a good recipe");
    assert_eq!(recipe.train.seed, 7);
    assert!(recipe.resolved().contains("hidden = 32"));
    let recipe = Recipe::parse(GOOD, "recipe.toml", &sets).expect("a good recipe");
    assert_eq!(recipe.columns[0].pool.to_string(), "global");
    insta::assert_snapshot!(Recipe::parse(GOOD, "recipe.toml", &["hidden".to_owned()]).expect_err("no value"), @r"
    `--set hidden` is not of the form KEY=VALUE
    hint: write for example `--set decoder.hidden=512`
    ");
}

#[test]
fn all_faults_are_shown_at_once_with_the_nearest_names() {
    let text = GOOD
        .replace("train = 8", "trian = 8")
        .replace("hidden = 64", "hiden = 64")
        .replace("tap = ", "tapp = \"x\"\ntap = ")
        .replace("resize = 64", "resize = \"big\"");
    insta::assert_snapshot!(fails(&text), @r#"
    the recipe `recipe.toml` has 4 faults
    unknown key `trian` in `dataset`
     --> recipe.toml:4:1
      |
    4 | trian = 8
      | ^^^^^ did you mean `train`?
    expected a number (the shorter side) or [height, width]
     --> recipe.toml:8:10
      |
    8 | resize = "big"
      |          ^^^^^
    unknown key `tapp` in `column.0`
      --> recipe.toml:14:1
       |
    14 | tapp = "x"
       | ^^^^ did you mean `tap`?
    unknown key `hiden` in `decoder`
      --> recipe.toml:21:1
       |
    21 | hiden = 64
       | ^^^^^ did you mean `hidden`?
    "#);
}

#[test]
fn a_kind_that_does_not_exist_names_the_nearest() {
    insta::assert_snapshot!(fails(&GOOD.replace("\"lstm\"", "\"lstmm\"")), @r#"
    the recipe `recipe.toml` has 1 fault
    `lstmm` is not known here
      --> recipe.toml:18:8
       |
    18 | kind = "lstmm"
       |        ^^^^^^^ did you mean `lstm`?
    "#);
}

#[test]
fn a_column_that_does_not_exist_names_the_nearest() {
    insta::assert_snapshot!(fails(&GOOD.replace("[\"grid\"]", "[\"gird\"]")), @r#"
    the recipe `recipe.toml` has 1 fault
    no [[column]] is called `gird`
      --> recipe.toml:19:11
       |
    19 | columns = ["gird"]
       |           ^^^^^^^^ did you mean `grid`?
    "#);
}

#[test]
fn pretrained_weights_bring_their_tokenizer() {
    let pretrained =
        GOOD.replace("kind = \"lstm\"", "kind = \"gpt2\"\npretrained = \"gpt2\"").replace("hidden = 64\n", "");
    let recipe = Recipe::parse(&pretrained, "recipe.toml", &[]).expect("a good recipe");
    assert_eq!(recipe.tokenizer, TokenizerSpec::Pretrained);
    assert_eq!(Recipe::parse(&recipe.resolved(), "resolved", &[]).expect("a good recipe"), recipe);
    insta::assert_snapshot!(fails(&format!("{pretrained}\n[tokenizer]\nkind = \"word\"\n")), @r#"
    the recipe `recipe.toml` has 1 fault
    a tokenizer trained on the captions doesn't fit pretrained weights
      --> recipe.toml:23:8
       |
    23 | kind = "word"
       |        ^^^^^^ leave [tokenizer] out: the weights come with their own
    "#);
    insta::assert_snapshot!(fails(&format!("{GOOD}\n[tokenizer]\nkind = \"pretrained\"\n")), @r#"
    the recipe `recipe.toml` has 1 fault
    the decoder has no pretrained weights that a tokenizer could come with
      --> recipe.toml:23:8
       |
    23 | kind = "pretrained"
       |        ^^^^^^^^^^^^ give `pretrained` in [decoder], or use `word`, `bpe` or `file`
    "#);
}

#[test]
fn what_is_missing_is_named() {
    insta::assert_snapshot!(fails(&GOOD.replace("tap = \"layer2\"\n", "")), @r#"
    the recipe `recipe.toml` has 1 fault
    the key `tap` is missing in `column.0`
      --> recipe.toml:12:1
       |
    12 | [[column]]
       | ^^^^^^^^^^
    "#);
}

#[test]
fn what_a_column_cannot_mean_is_shown_under_its_key() {
    let more = "taps = [\"layer2\", \"layer2\"]\ntiles = \"2x2\"\nviews = [\"hflip\", \"hflip\"]\nseed = 3\n";
    insta::assert_snapshot!(fails(&GOOD.replace("pool = \"4x4\"\n", more)), @r#"
    the recipe `recipe.toml` has 5 faults
    column `grid` has both `tap` and `taps`
      --> recipe.toml:15:8
       |
    15 | taps = ["layer2", "layer2"]
       |        ^^^^^^^^^^^^^^^^^^^^ put all layers into `taps`
    column `grid` taps `layer2` twice
      --> recipe.toml:15:8
       |
    15 | taps = ["layer2", "layer2"]
       |        ^^^^^^^^^^^^^^^^^^^^ name each layer once
    column `grid` has both `tiles` and `views`
      --> recipe.toml:17:9
       |
    17 | views = ["hflip", "hflip"]
       |         ^^^^^^^^^^^^^^^^^^ make two columns of it: a decoder reads several
    column `grid` names the view `hflip` twice
      --> recipe.toml:17:9
       |
    17 | views = ["hflip", "hflip"]
       |         ^^^^^^^^^^^^^^^^^^ each view makes one vector: name it once
    column `grid` has a `seed` and no random views
      --> recipe.toml:18:8
       |
    18 | seed = 3
       |        ^ drop it, or add `random:4`
    "#);
    let more = "views = [\"random:2\", \"random:3\"]\n";
    insta::assert_snapshot!(fails(&GOOD.replace("pool = \"4x4\"\n", more)), @r#"
    the recipe `recipe.toml` has 1 fault
    column `grid` names random views twice
      --> recipe.toml:15:9
       |
    15 | views = ["random:2", "random:3"]
       |         ^^^^^^^^^^^^^^^^^^^^^^^^ they would be the same crops: ask for more at once, such as `random:8`
    "#);
}

#[test]
fn views_and_tiles_that_do_not_exist_are_shown_all_at_once() {
    let more = "tiles = \"2\"\nviews = [\"center\", \"vflip\", \"random:0\"]\ndtype = \"i4\"\n";
    insta::assert_snapshot!(fails(&GOOD.replace("pool = \"4x4\"\n", more)), @r#"
    the recipe `recipe.toml` has 4 faults
    `2` cuts no picture: write ROWSxCOLUMNS, such as `2x2`, or `2x2+1` for the parts and the whole
      --> recipe.toml:15:9
       |
    15 | tiles = "2"
       |         ^^^
    `vflip` is no view: center, hflip, five-crop, whole, or N random crops by `random:N`
      --> recipe.toml:16:20
       |
    16 | views = ["center", "vflip", "random:0"]
       |                    ^^^^^^^
    `random:0` is no view: center, hflip, five-crop, whole, or N random crops by `random:N`
      --> recipe.toml:16:29
       |
    16 | views = ["center", "vflip", "random:0"]
       |                             ^^^^^^^^^^
    `i4` is not known here
      --> recipe.toml:17:9
       |
    17 | dtype = "i4"
       |         ^^^^ did you mean `i8`?
    "#);
}

#[test]
fn variants_read_back_as_they_were_written() {
    let more = "views = [\"center\", \"five-crop\", \"random:2\"]\nseed = 5\ndtype = \"i8\"\n";
    let text = GOOD.replace("tap = \"layer2\"", "taps = [\"layer2\", \"layer3\"]").replace("pool = \"4x4\"\n", more);
    let recipe = Recipe::parse(&text, "recipe.toml", &[]).expect("a good recipe");
    assert_eq!(recipe.columns[0].views().len(), 7);
    let resolved = recipe.resolved();
    assert_eq!(Recipe::parse(&resolved, "resolved", &[]).expect("a good recipe"), recipe, "{resolved}");
}

#[test]
fn broken_toml_is_shown_where_it_breaks() {
    insta::assert_snapshot!(fails("[dataset\nformat = 1"), @r#"
    the recipe `recipe.toml` has 1 fault
    unclosed table, expected `]`
     --> recipe.toml:1:9
      |
    1 | [dataset
      |         ^
    "#);
}

#[test]
fn every_recipe_in_pipelines_loads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let mut seen = 0;
    for entry in fs::read_dir(folder).expect("pipelines/") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            if fs::read_to_string(&path).expect("a file").lines().any(|line| line.starts_with("recipe = ")) {
                continue; // A sweep file: see `sweep`.
            }
            Recipe::load(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
            let text = fs::read_to_string(&path).expect("a recipe");
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            assert!(text.contains(&format!("icecap encode pipelines/{name}")), "{name} is not headed by its command");
            seen += 1;
        }
    }
    assert!(seen >= 3);
}

/// Whether the faults of a text hold each of these lines.
fn fails_with(text: &str, lines: &[&str]) {
    let said = fails(text);
    for line in lines {
        assert!(said.contains(line), "`{line}` is not in\n{said}");
    }
}

#[test]
fn regions_need_a_source_and_a_map() {
    let column = |more: &str| GOOD.replace("pool = \"4x4\"\n", more);
    fails_with(
        &column("regions = \"detector\"\n"),
        &["has 1 fault", "column `grid` needs a detector, and there is none", "add a section: [detector]"],
    );
    fails_with(
        &column("regions = { file = \"boxes.jsonl\", max = 0 }\npool = \"global\"\ntiles = \"2x2\"\n"),
        &[
            "has 3 faults",
            "column `grid` has regions or is the detector's, and has `tiles`",
            "column `grid` pools its regions by `global`",
            "`max = 0` is no number of regions",
        ],
    );
    fails_with(
        &column("regions = \"detektor\"\n"),
        &["has 1 fault", "expected \"detector\" or { file = \"boxes.jsonl\", max = 36 }"],
    );
    fails_with(
        &column("from = \"detector\"\n"),
        &["a detector has no tensor `layer2` to keep", "one of box_features, fpn.0", "needs a detector"],
    );
}

#[test]
fn a_detector_that_makes_no_sense_is_refused_whole() {
    let text = format!(
        "{GOOD}[detector]\nkind = \"yolox\"\ntop = 4\nmin = 9\nscore = 2\nsize = 500\nmax_size = 64\nweights = \"random\"\n"
    );
    fails_with(
        &text,
        &[
            "`top` is `min` and `max` in one",
            "`min` is larger than `max`",
            "`score = 2` is no share",
            "`max_size = 64` is no size for a detector",
            "a YOLOX sees a square",
            "sides of a multiple of 32",
            "the detector is the encoder's own model",
            "no column asks the detector for anything",
        ],
    );
    let levels = GOOD.replace("tap = \"layer2\"\npool = \"4x4\"", "from = \"detector\"\ntap = \"fpn.0\"");
    fails_with(
        &format!("{levels}[detector]\nkind = \"fasterrcnn\"\n"),
        &["has 1 fault", "column `grid` keeps maps of a level, and each picture's has another size"],
    );
}

#[test]
fn a_detector_resolves_to_its_familys_numbers() {
    let text = GOOD.replace("pool = \"4x4\"", "regions = \"detector\"");
    let plan = |section: &str| {
        let recipe = Recipe::parse(&format!("{text}[detector]\n{section}"), "r", &[]).expect("a good recipe");
        let again = Recipe::parse(&recipe.resolved(), "resolved", &[]).expect("a good recipe");
        assert_eq!(again.detector, recipe.detector);
        recipe.detector.expect("a detector").resolve(Path::new("m.onnx"), 4)
    };
    let policy = plan("kind = \"yolox\"\ntop = 10").policy;
    assert_eq!((policy.min, policy.max, policy.score, policy.nms), (10, 10, 0.2, 0.45));
    let policy = plan("kind = \"fasterrcnn\"\nmin = 2\nscore = 0.3").policy;
    assert_eq!((policy.min, policy.max, policy.score, policy.nms), (2, 36, 0.3, 0.5));
}

const TAIL: &str = "\n[tail]\ncolumn = \"grid\"\nto = \"layer4\"\n";

#[test]
fn a_tail_begins_with_a_tensor_as_it_is() {
    let good = format!("{}{TAIL}", GOOD.replace("pool = \"4x4\"\n", ""));
    let recipe = Recipe::parse(&good, "recipe.toml", &[]).expect("a good recipe");
    let resolved = recipe.resolved();
    assert_eq!(Recipe::parse(&resolved, "resolved", &[]).expect("a good recipe"), recipe, "{resolved}");
    let defaults = "pool = \"none\"\nlearning_rate_scale = 0.1\nbatch_norm = \"frozen\"\n";
    assert!(resolved.contains(&format!("{TAIL}{defaults}")), "{resolved}");
    let slips = "pol = \"global\"\nlearning_rate_scale = 0\nbatch_norm = \"frosen\"\n";
    insta::assert_snapshot!(fails(&format!("{GOOD}{TAIL}{slips}")), @r#"
    the recipe `recipe.toml` has 4 faults
    a tail can't begin with column `grid`: it was pooled
      --> recipe.toml:23:10
       |
    23 | column = "grid"
       |          ^^^^^^ keep the tensor as it is: pool = "none"
    unknown key `pol` in `tail`
      --> recipe.toml:25:1
       |
    25 | pol = "global"
       | ^^^ did you mean `pool`?
    `0` does not work: it must be above 0 and at most 1000
      --> recipe.toml:26:23
       |
    26 | learning_rate_scale = 0
       |                       ^ leave [tail] out to keep the encoder frozen
    `frosen` is not known here
      --> recipe.toml:27:14
       |
    27 | batch_norm = "frosen"
       |              ^^^^^^^^ did you mean `frozen`?
    "#);
    insta::assert_snapshot!(fails(&format!("{GOOD}standardize = true\n{TAIL}learning_rate_scale = 0.0\n")), @r#"
    the recipe `recipe.toml` has 3 faults
    a tail can't begin with column `grid`: it was pooled
      --> recipe.toml:24:10
       |
    24 | column = "grid"
       |          ^^^^^^ keep the tensor as it is: pool = "none"
    a tail computes with the encoder's own numbers, and `standardize` changes them
      --> recipe.toml:24:10
       |
    24 | column = "grid"
       |          ^^^^^^ leave `decoder.standardize` out
    `0` does not work: it must be above 0 and at most 1000
      --> recipe.toml:26:23
       |
    26 | learning_rate_scale = 0.0
       |                       ^^^ leave [tail] out to keep the encoder frozen
    "#);
    insta::assert_snapshot!(fails(&good.replace("column = \"grid\"\nto", "column = \"gird\"\nto")), @r#"
    the recipe `recipe.toml` has 1 fault
    the decoder reads no column `gird`; did you mean `grid`?
      --> recipe.toml:22:10
       |
    22 | column = "gird"
       |          ^^^^^^ name one of `decoder.columns`: the tail takes its place
    "#);
    let refused = |column: &str, why: &str| {
        let said = fails(&good.replace("tap = \"layer2\"\n", column));
        assert!(said.contains(&format!("a tail can't begin with column `grid`: {why}")), "{said}");
    };
    refused("tap = \"layer2\"\ntiles = \"2x2\"\n", "its rows are tiles of the picture");
    refused("tap = \"layer2\"\nviews = [\"center\", \"hflip\"]\n", "its rows are several views");
    refused("tap = \"layer2\"\nregions = { file = \"boxes.jsonl\" }\npool = \"7x7\"\n", "its rows are regions");
    refused("taps = [\"layer2\", \"layer3\"]\n", "it joins several tensors");
    refused("tap = \"layer2\"\nl2 = true\n", "its vectors were divided");
    refused("tap = \"layer4\"\n", "it holds `to` itself");
    let (head, _) = good.split_once("[decoder]").expect("a decoder");
    assert!(fails(&format!("{head}{TAIL}")).contains("the recipe has a [tail] and no [decoder] behind it"));
}
