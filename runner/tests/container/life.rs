//! How containers begin and end.

use runner::container::Exit;

use crate::world::World;

#[test]
fn a_program_runs_and_its_code_comes_back() {
    let mut world = World::new();
    assert_eq!(world.sh("echo hello"), "hello\n");
    let output = world.run(&["sh", "-c", "exit 7"]);
    assert_eq!(output.exit, Ok(Exit::Code(7)));
    let output = world.run(&["sh", "-c", "kill -9 $$"]);
    assert_eq!(output.exit, Ok(Exit::Signal(9)));
}
