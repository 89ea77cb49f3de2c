//! What must never become a row, or cost one: numbers that are none, boxes of another picture, another data set, what is no file.

use std::process::Command;

use icecap::dataset::shapes::Scene;

use crate::support::Place;

fn png(index: u64) -> Vec<u8> {
    Scene { seed: 0, index, side: 64 }.png()
}

/// A place with pictures of these names in `images`, and a recipe of them.
fn folder(names: &[&str]) -> Place {
    let place = Place::with_recipe();
    names.iter().zip(0..).for_each(|(name, index)| place.write(&format!("images/{name}"), png(index)));
    let recipe = place.read("recipe.toml");
    let dataset = "[dataset]\nformat = \"folder\"\nimages = \"images\"\n\n";
    place.write("folder.toml", format!("{dataset}{}", &recipe[recipe.find("[encoder]").expect("an encoder")..]));
    place
}

#[test]
fn a_number_that_the_element_type_cannot_hold_is_no_row() {
    let place = folder(&["a.png", "b.png", "c.png"]);
    // Values a million times larger than usual: f16 ends at 65504, f32 does not mind.
    let line = "encode folder.toml --data . --cache cache --set encoder.std=[1e-7,1e-7,1e-7] --max-missing 100% --json";
    let columns = place.icecap(line).good().json()["columns"].clone();
    assert_eq!(columns[0]["missing"], serde_json::json!({ "other": 3 }), "{columns}");
    assert_eq!(columns[1]["missing"], serde_json::json!({}), "{columns}");
    let listed = place.icecap("cache missing cache").good().out;
    assert!(listed.contains("a number that f16 can't"), "{listed}");
    place.icecap("cache verify cache").good();
}

#[test]
fn boxes_go_by_file_name_only_where_that_is_one_picture() {
    let place = folder(&["train/0.png", "val/0.png", "val/1.png"]);
    let recipe = place.read("folder.toml");
    let regions = "tap = \"c2\"\nregions = { file = \"boxes.jsonl\", max = 2 }\n";
    place.write("regions.toml", recipe.replace("tap = \"c2\"\npool = \"4x4\"\n", regions));
    let line = |id: &str| format!("{{\"id\": \"{id}\", \"boxes\": [[1, 1, 9, 9]]}}\n");
    place.write("boxes.jsonl", line("0.png"));
    let refused = place.icecap("encode regions.toml --data . --cache cache").bad();
    assert!(refused.contains("the boxes of `0.png` in `./boxes.jsonl` would be those of two pictures"), "{refused}");
    assert!(refused.contains("`train/0.png` and `val/0.png`"), "{refused}");
    place.write("boxes.jsonl", [line("val/0.png"), line("1.png")].concat());
    place.icecap("encode regions.toml --data . --cache cache").good();

    let image = |id: u32, name: &str| format!("{{\"id\": {id}, \"file_name\": \"{name}\"}}");
    let images = [image(1, "0.png"), image(2, "0.png")].join(", ");
    place.write("boxes.json", format!("{{\"images\": [{images}], \"annotations\": []}}"));
    place.write("regions.toml", place.read("regions.toml").replace("boxes.jsonl", "boxes.json"));
    let refused = place.icecap("encode regions.toml --data . --cache other").bad();
    assert!(refused.contains("two of the `images` in `./boxes.json` are called `0.png`"), "{refused}");
}

#[test]
fn another_data_set_takes_no_row_away() {
    let place = folder(&["a.png", "b.png"]);
    place.icecap("encode folder.toml --data . --cache cache").good();
    for name in ["images/x.png", "features/x.npy"] {
        let header = format!("{:<117}\n", "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }");
        let npy =
            [b"\x93NUMPY\x01\x00\x76\x00".as_slice(), header.as_bytes(), &1f32.to_le_bytes(), &2f32.to_le_bytes()];
        place.write(name, if name.ends_with("npy") { npy.concat() } else { png(7) });
    }
    for gone in ["images/a.png", "images/b.png"] {
        std::fs::remove_file(place.path(gone)).expect("a picture");
    }
    // The same name and format, and none of the pictures.
    let import = "cache import cache --column f --from features --format npy --dataset folder.toml --data .";
    for line in ["encode folder.toml --data . --cache cache", import] {
        let refused = place.icecap(line).bad();
        assert!(refused.contains("has 0 of its 2 images"), "{refused}");
    }
    assert!(!place.read("cache/rows.jsonl").contains("\"gone\":true"));
}

#[test]
fn a_pipe_and_a_giant_are_missing_rows() {
    let place = folder(&["a.png", "b.png", "c.png", "d.png"]);
    std::fs::remove_file(place.path("images/b.png")).expect("a picture");
    let made = Command::new("mkfifo").arg(place.path("images/b.png")).status().expect("mkfifo runs");
    assert!(made.success());
    let giant = std::fs::File::create(place.path("images/c.png")).expect("a file");
    giant.set_len(257 << 20).expect("a sparse file");
    let line = "encode folder.toml --data . --cache cache --max-missing 100% --json";
    let missing = place.icecap(line).good().json()["columns"][0]["missing"].clone();
    assert_eq!(missing, serde_json::json!({ "too-large": 1, "unreadable": 1 }));
}
