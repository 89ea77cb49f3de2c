//! Every fault of a recipe at once, each at its place.

use super::*;

#[test]
fn an_unknown_word_and_a_missing_key_hide_nothing() {
    let text = GOOD
        .replace("kind = \"lstm\"", "kind = \"foo\"")
        .replace("tap = \"layer2\"\n", "")
        .replace("[\"grid\"]", "[\"grit\"]")
        .replace("resize = 64", "resiz = 64")
        .replace("train = 8", "train = \"many\"\nside = -3")
        + "[train]\nlearnin_rate = 1\nbatch = 0\n[decode]\nbeam = 0\n";
    insta::assert_snapshot!(fails(&text), @r#"
    the recipe `recipe.toml` has 9 faults
    expected a whole number of at least 0, found "many"
     --> recipe.toml:4:9
      |
    4 | train = "many"
      |         ^^^^^^
    expected a whole number of at least 0, found -3
     --> recipe.toml:5:8
      |
    5 | side = -3
      |        ^^
    unknown key `resiz` in `encoder`
     --> recipe.toml:9:1
      |
    9 | resiz = 64
      | ^^^^^ did you mean `resize`?
    the key `tap` is missing in `column.0`
      --> recipe.toml:13:1
       |
    13 | [[column]]
       | ^^^^^^^^^^
    `foo` is not known here
      --> recipe.toml:18:8
       |
    18 | kind = "foo"
       |        ^^^^^ known here: lstm, attention-lstm, gpt2
    no [[column]] is called `grit`
      --> recipe.toml:19:11
       |
    19 | columns = ["grit"]
       |           ^^^^^^^^ did you mean `grid`?
    unknown key `learnin_rate` in `train`
      --> recipe.toml:22:1
       |
    22 | learnin_rate = 1
       | ^^^^^^^^^^^^ did you mean `learning_rate`?
    `0` does not work: it must be at least 1
      --> recipe.toml:23:9
       |
    23 | batch = 0
       |         ^
    `0` does not work: it must be 1 to 1000
      --> recipe.toml:25:8
       |
    25 | beam = 0
       |        ^
    "#);
}

#[test]
fn a_recipe_of_nothing_says_what_it_lacks() {
    insta::assert_snapshot!(fails("[decoder]\nkind = \"lstm\"\nhiden = 3\n"), @"
    the recipe `recipe.toml` has 4 faults
    the key `columns` is missing in `decoder`
     --> recipe.toml:1:1
      |
    1 | [decoder]
      | ^^^^^^^^^
    the key `dataset` is missing
     --> recipe.toml:1:1
      |
    1 | [decoder]
      | ^
    the key `encoder` is missing
     --> recipe.toml:1:1
      |
    1 | [decoder]
      | ^
    unknown key `hiden` in `decoder`
     --> recipe.toml:3:1
      |
    3 | hiden = 3
      | ^^^^^ did you mean `hidden`?
    ");
}

#[test]
fn a_wrong_type_deep_inside_is_one_fault_at_its_place() {
    let coco = "[dataset]\nformat = \"coco\"\ntrain = { captions = \"c.json\", imagez = \"i\" }\nval = 3\n";
    let text = coco.to_owned() + &GOOD[GOOD.find("[encoder]").expect("an encoder")..];
    insta::assert_snapshot!(fails(&text), @r#"
    the recipe `recipe.toml` has 2 faults
    unknown key `imagez` in `dataset.train`
     --> recipe.toml:3:32
      |
    3 | train = { captions = "c.json", imagez = "i" }
      |                                ^^^^^^ did you mean `images`?
    expected a table of keys and values, found 3
     --> recipe.toml:4:7
      |
    4 | val = 3
      |       ^
    "#);
}

#[test]
fn faults_of_meaning_are_shown_with_the_others() {
    let text = GOOD.replace("hidden = 64", "hiden = 64\ndropout = 1.5")
        + "[[column]]\nname = \"grid\"\ntap = 3\n[[column]]\nname = \"../up\"\ntap = \"x\"\npool = \"7\"\n";
    insta::assert_snapshot!(fails(&text), @r#"
    the recipe `recipe.toml` has 6 faults
    unknown key `hiden` in `decoder`
      --> recipe.toml:20:1
       |
    20 | hiden = 64
       | ^^^^^ did you mean `hidden`?
    `1.5` does not work: it must be at least 0 and below 1
      --> recipe.toml:21:11
       |
    21 | dropout = 1.5
       |           ^^^
    two columns are called `grid`
      --> recipe.toml:23:8
       |
    23 | name = "grid"
       |        ^^^^^^
    expected a text in quotes, found 3
      --> recipe.toml:24:7
       |
    24 | tap = 3
       |       ^
    `../up` can't name a column
      --> recipe.toml:26:8
       |
    26 | name = "../up"
       |        ^^^^^^^ use letters, digits, `.`, `_` and `-`
    `7` is no pooling: none, global, flatten, or a grid such as 7x7
      --> recipe.toml:28:8
       |
    28 | pool = "7"
       |        ^^^
    "#);
}

#[test]
fn numbers_that_can_not_work_are_found_before_anything_is_encoded() {
    let text = GOOD.replace("hidden = 64", "hidden = 0").replace("std = [0.5, 0.5, 0.5]", "std = [0, 0, 0]")
        + "[train]\nbatch = 0\nlabel_smoothing = 1.0\n";
    insta::assert_snapshot!(fails(&text), @"
    the recipe `recipe.toml` has 4 faults
    `[0.0, 0.0, 0.0]` does not work: it must be finite numbers, none of them 0
      --> recipe.toml:10:7
       |
    10 | std = [0, 0, 0]
       |       ^^^^^^^^^
    `0` does not work: it must be 1 to 65536
      --> recipe.toml:20:10
       |
    20 | hidden = 0
       |          ^
    `0` does not work: it must be at least 1
      --> recipe.toml:22:9
       |
    22 | batch = 0
       |         ^
    `1` does not work: it must be at least 0 and below 1
      --> recipe.toml:23:19
       |
    23 | label_smoothing = 1.0
       |                   ^^^
    ");
}

#[test]
fn a_set_of_a_place_that_is_not_there_says_so() {
    let set = |given: &str| Recipe::parse(GOOD, "recipe.toml", &[given.to_owned()]).expect_err("no such place");
    insta::assert_snapshot!(set("column.7.pool=4x4"), @"
    `--set column.7.pool=4x4`: there is no `column.7`: the last one is `column.0`
    hint: a place is a section and a key, such as `decoder.hidden`; columns are counted from 0, as in `column.0.pool`
    ");
    insta::assert_snapshot!(set("decoder.hidden.width=4"), @"
    `--set decoder.hidden.width=4`: there is no `decoder.hidden.width`: `decoder.hidden` is no table
    hint: a place is a section and a key, such as `decoder.hidden`; columns are counted from 0, as in `column.0.pool`
    ");
}
